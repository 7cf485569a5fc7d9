"""What the Batch API's lines pay: a second price beside the first, all of a model's or none."""

from django.db import migrations, models

# The guard of 0001 with one more rule: a version that is published is whole.
GUARD = """
CREATE OR REPLACE FUNCTION price_version_guard() RETURNS trigger LANGUAGE plpgsql AS $body$
DECLARE
  partial text;
BEGIN
  IF TG_OP = 'DELETE' THEN
    IF OLD.status = 'draft' THEN RETURN OLD; END IF;
  ELSIF (NEW.id, NEW.book_id, NEW.number, NEW.created_at)
        IS DISTINCT FROM (OLD.id, OLD.book_id, OLD.number, OLD.created_at) THEN
    NULL;
  ELSIF OLD.status = 'draft' AND NEW.status IN ('draft', 'published') THEN
    -- The row is locked by now, and price_guard waits for it: no price can slip in behind this.
    SELECT model INTO partial FROM price
     WHERE version_id = NEW.id AND NEW.status = 'published'
     GROUP BY model HAVING count(batch_unit_price_pico) NOT IN (0, count(*)) LIMIT 1;
    IF FOUND THEN
      RAISE EXCEPTION '% has some batch prices only', partial USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
  ELSIF OLD.status = 'published' AND NEW.status = 'superseded'
        AND (NEW.effective_at, NEW.published_at) = (OLD.effective_at, OLD.published_at) THEN
    RETURN NEW;
  END IF;
  RAISE EXCEPTION 'price-book version % is %: it cannot change', OLD.number, OLD.status
    USING ERRCODE = 'restrict_violation';
END $body$;
"""

# 0001's, for the way back: without the column the guard above would not run.
GUARD_BEFORE = """
CREATE OR REPLACE FUNCTION price_version_guard() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  IF TG_OP = 'DELETE' THEN
    IF OLD.status = 'draft' THEN RETURN OLD; END IF;
  ELSIF (NEW.id, NEW.book_id, NEW.number, NEW.created_at)
        IS DISTINCT FROM (OLD.id, OLD.book_id, OLD.number, OLD.created_at) THEN
    NULL;
  ELSIF OLD.status = 'draft' AND NEW.status IN ('draft', 'published') THEN
    RETURN NEW;
  ELSIF OLD.status = 'published' AND NEW.status = 'superseded'
        AND (NEW.effective_at, NEW.published_at) = (OLD.effective_at, OLD.published_at) THEN
    RETURN NEW;
  END IF;
  RAISE EXCEPTION 'price-book version % is %: it cannot change', OLD.number, OLD.status
    USING ERRCODE = 'restrict_violation';
END $body$;
"""


class Migration(migrations.Migration):

    dependencies = [("pricing", "0001_price_books")]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.AddField(
            model_name="price",
            name="batch_unit_price_pico",
            field=models.BigIntegerField(blank=True, null=True),
        ),
        migrations.AddConstraint(
            model_name="price",
            constraint=models.CheckConstraint(
                condition=models.Q(("batch_unit_price_pico__isnull", True), ("batch_unit_price_pico__gte", 0), _connector="OR"),
                name="price_batch_not_negative",
            ),
        ),
        migrations.RunSQL(GUARD, GUARD_BEFORE),
    ]
