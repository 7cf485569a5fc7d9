"""What the verbs refuse, the database refuses too: limits nobody can have, scopes of others."""

from django.db import migrations, models

# A project's limit is for a project of the same tenant. Keys share the scope of theirs, which is
# then no row's own id.
SAME_TENANT = """
ALTER TABLE tenant_limit
  ADD COLUMN project_id uuid GENERATED ALWAYS AS
    (CASE WHEN level = 'project' THEN scope_id END) STORED,
  ADD CONSTRAINT tenant_limit_project_same_tenant
    FOREIGN KEY (tenant_id, project_id) REFERENCES project (tenant_id, id);
ALTER TABLE tenant_restriction
  ADD COLUMN project_id uuid GENERATED ALWAYS AS
    (CASE WHEN level = 'project' THEN scope_id END) STORED,
  ADD COLUMN key_id uuid GENERATED ALWAYS AS
    (CASE WHEN level = 'key' THEN scope_id END) STORED,
  ADD CONSTRAINT tenant_restriction_project_same_tenant
    FOREIGN KEY (tenant_id, project_id) REFERENCES project (tenant_id, id),
  ADD CONSTRAINT tenant_restriction_key_same_tenant
    FOREIGN KEY (tenant_id, key_id) REFERENCES api_key (tenant_id, id);
ALTER TABLE plan ADD CONSTRAINT plan_limits_is_a_list CHECK (jsonb_typeof(limits) = 'array');
"""
SAME_TENANT_NO_MORE = """
ALTER TABLE tenant_limit DROP COLUMN project_id;
ALTER TABLE tenant_restriction DROP COLUMN project_id, DROP COLUMN key_id;
ALTER TABLE plan DROP CONSTRAINT plan_limits_is_a_list;
"""


class Migration(migrations.Migration):

    dependencies = [
        ('tenants', '0003_rotation_and_leaks'),
    ]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        # As before, but a raise without an amount is no longer unknown, and so let through.
        migrations.RemoveConstraint(model_name='limit', name='tenant_limit_raise_ends'),
        migrations.AddConstraint(
            model_name='limit',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('raised_to__isnull', True), ('raised_until__isnull', True)), models.Q(('amount__isnull', False), ('raised_to__gte', 0), ('raised_to__isnull', False), ('raised_until__isnull', False)), _connector='OR'), name='tenant_limit_raise_ends'),
        ),
        migrations.AddConstraint(
            model_name='limit',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('kind', 'requests'), ('window__in', ['second', 'minute', 'day'])), models.Q(('kind', 'input_tokens'), ('window__in', ['minute', 'day'])), models.Q(('kind', 'output_tokens'), ('window__in', ['minute', 'day'])), models.Q(('kind', 'total_tokens'), ('window__in', ['minute', 'day'])), models.Q(('kind', 'concurrency'), ('window__in', ['at_once'])), models.Q(('kind', 'spend'), ('window__in', ['day', 'week', 'month', 'lifetime', 'prepaid'])), _connector='OR'), name='tenant_limit_kind_window'),
        ),
        migrations.AddConstraint(
            model_name='limit',
            constraint=models.CheckConstraint(condition=models.Q(('burst__isnull', True), models.Q(('kind', 'requests'), ('window__in', ['second', 'minute'])), _connector='OR'), name='tenant_limit_burst_of_rates'),
        ),
        migrations.AddConstraint(
            model_name='limit',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('level', 'organisation'), _negated=True), ('scope_id', models.F('tenant')), _connector='OR'), name='tenant_limit_organisation_is_its_own'),
        ),
        migrations.AddConstraint(
            model_name='limit',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('window', 'prepaid'), _negated=True), ('level', 'organisation'), _connector='OR'), name='tenant_limit_prepaid_of_organisation'),
        ),
        migrations.AddConstraint(
            model_name='restriction',
            constraint=models.CheckConstraint(condition=models.Q(('request_tokens_max__isnull', True), ('request_tokens_max__gte', 1), _connector='OR'), name='tenant_restriction_tokens'),
        ),
        migrations.AddConstraint(
            model_name='restriction',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('level', 'organisation'), _negated=True), ('scope_id', models.F('tenant')), _connector='OR'), name='tenant_restriction_organisation_is_its_own'),
        ),
        migrations.RunSQL(SAME_TENANT, SAME_TENANT_NO_MORE),
    ]
