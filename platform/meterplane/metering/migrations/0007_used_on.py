"""Gateways may ask what an organisation used on a day: counts that Redis lost start from it.

By the model that served: a day's limit of a key for one model does not get back what a fallback
served for it. `events` are requests as admission counts them: those that failed have been one, too.
"""

from django.db import migrations

USED_ON = """
CREATE FUNCTION used_on(tenant uuid, day date)
RETURNS TABLE (project_id uuid, key_scope_id uuid, model text, requests bigint, tokens_in bigint,
               tokens_out bigint)
LANGUAGE sql STABLE SECURITY DEFINER
-- pg_temp last: a caller must not put a table of its own in front of ours.
SET search_path = public, pg_temp AS $body$
  SELECT h.project_id, COALESCE(k.limits_scope_id, k.id), h.model, sum(h.events)::bigint,
         sum(h.tokens_in)::bigint, sum(h.tokens_out)::bigint
    FROM usage_hour h
    JOIN api_key k ON (k.tenant_id, k.id) = (h.tenant_id, h.key_id)
   WHERE h.tenant_id = used_on.tenant
     AND h.hour >= used_on.day::timestamp AT TIME ZONE 'UTC'
     AND h.hour < (used_on.day + 1)::timestamp AT TIME ZONE 'UTC'
   GROUP BY 1, 2, 3
$body$;
REVOKE EXECUTE ON FUNCTION used_on FROM PUBLIC, meterplane_app, meterplane_system;
GRANT EXECUTE ON FUNCTION used_on TO meterplane_gateway;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("metering", "0006_where_answers_stop"),
        ("tenants", "0003_rotation_and_leaks"),
    ]

    operations = [migrations.RunSQL(USED_ON, "DROP FUNCTION used_on")]
