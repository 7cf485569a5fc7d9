"""Files, batches and their lines."""

import django.db.models.deletion
import django.db.models.expressions
import meterplane.kernel.clock
import meterplane.kernel.ids
from django.db import migrations, models


ISOLATED = """
SELECT meterplane_isolate('batch_file');
SELECT meterplane_isolate('batch');
SELECT meterplane_isolate('batch_line');
ALTER TABLE batch_file ADD CONSTRAINT batch_file_project_same_tenant
  FOREIGN KEY (tenant_id, project_id) REFERENCES project (tenant_id, id);
ALTER TABLE batch ADD CONSTRAINT batch_project_same_tenant
  FOREIGN KEY (tenant_id, project_id) REFERENCES project (tenant_id, id);
ALTER TABLE batch ADD CONSTRAINT batch_key_same_tenant
  FOREIGN KEY (tenant_id, key_id) REFERENCES api_key (tenant_id, id);
ALTER TABLE batch_line ADD CONSTRAINT batch_line_batch_same_tenant
  FOREIGN KEY (tenant_id, batch_id) REFERENCES batch (tenant_id, id);
"""

# The first answer to a line is its answer, and a batch that has ended has ended.
GUARDS = """
CREATE FUNCTION batch_line_guard() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  IF OLD.status <> 'waiting' THEN
    RAISE EXCEPTION 'line % of batch % has its answer', OLD.line_no, OLD.batch_id
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $body$;
CREATE TRIGGER batch_line_guard BEFORE UPDATE ON batch_line
  FOR EACH ROW EXECUTE FUNCTION batch_line_guard();
CREATE FUNCTION batch_guard() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  IF OLD.ended_at IS NOT NULL THEN
    RAISE EXCEPTION 'batch % has ended', OLD.id USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $body$;
CREATE TRIGGER batch_guard BEFORE UPDATE ON batch
  FOR EACH ROW EXECUTE FUNCTION batch_guard();
"""

UNDO = """
DROP TRIGGER batch_line_guard ON batch_line;
DROP FUNCTION batch_line_guard();
DROP TRIGGER batch_guard ON batch;
DROP FUNCTION batch_guard();
"""


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        ('tenants', '0001_initial'),
    ]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.CreateModel(
            name='Batch',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('status', models.CharField(choices=[('validating', 'Validating'), ('failed', 'Failed'), ('in_progress', 'In progress'), ('finalizing', 'Finalizing'), ('completed', 'Completed'), ('expiring', 'Expiring'), ('expired', 'Expired'), ('cancelling', 'Cancelling'), ('cancelled', 'Cancelled')], default='validating', max_length=16)),
                ('endpoint', models.CharField(max_length=40)),
                ('input_file_id', models.UUIDField()),
                ('output_file_id', models.UUIDField(default=meterplane.kernel.ids.uuid7)),
                ('error_file_id', models.UUIDField(default=meterplane.kernel.ids.uuid7)),
                ('output_life_s', models.PositiveIntegerField()),
                ('metadata', models.JSONField(blank=True, null=True)),
                ('model', models.CharField(blank=True, default='', max_length=80)),
                ('errors', models.JSONField(blank=True, null=True)),
                ('total', models.PositiveIntegerField(default=0)),
                ('completed', models.PositiveIntegerField(default=0)),
                ('failed', models.PositiveIntegerField(default=0)),
                ('tokens_in', models.BigIntegerField(default=0)),
                ('tokens_out', models.BigIntegerField(default=0)),
                ('has_output', models.BooleanField(default=False)),
                ('has_errors', models.BooleanField(default=False)),
                ('created_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('expires_at', models.DateTimeField()),
                ('worked_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('in_progress_at', models.DateTimeField(blank=True, null=True)),
                ('finalizing_at', models.DateTimeField(blank=True, null=True)),
                ('cancelling_at', models.DateTimeField(blank=True, null=True)),
                ('ended_at', models.DateTimeField(blank=True, null=True)),
                ('key', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.apikey')),
                ('project', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.project')),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation')),
            ],
            options={
                'verbose_name_plural': 'batches',
                'db_table': 'batch',
                'ordering': ['-id'],
            },
        ),
        migrations.CreateModel(
            name='BatchLine',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('line_no', models.PositiveIntegerField()),
                ('custom_id', models.CharField(max_length=512)),
                ('start_byte', models.BigIntegerField()),
                ('size_bytes', models.PositiveIntegerField()),
                ('request_id', models.UUIDField()),
                ('status', models.CharField(choices=[('waiting', 'Waiting'), ('completed', 'Completed'), ('failed', 'Failed')], default='waiting', max_length=16)),
                ('sent', models.BooleanField(default=False)),
                ('attempts', models.PositiveIntegerField(default=0)),
                ('not_before', models.DateTimeField(blank=True, null=True)),
                ('lease_until', models.DateTimeField(blank=True, null=True)),
                ('http_status', models.PositiveSmallIntegerField(blank=True, null=True)),
                ('body', models.BinaryField(blank=True, null=True)),
                ('batch', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='batches.batch')),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation')),
            ],
            options={
                'db_table': 'batch_line',
                'ordering': ['line_no'],
            },
        ),
        migrations.CreateModel(
            name='StoredFile',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('purpose', models.CharField(choices=[('batch', 'Input of a batch'), ('batch_output', 'Result of a batch')], max_length=16)),
                ('state', models.CharField(choices=[('arriving', 'Being written'), ('ready', 'There'), ('leaving', 'Deleted; the content goes next')], max_length=16)),
                ('filename', models.CharField(max_length=255)),
                ('size_bytes', models.BigIntegerField()),
                ('created_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('expires_at', models.DateTimeField()),
                ('project', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.project')),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation')),
            ],
            options={
                'db_table': 'batch_file',
                'ordering': ['-id'],
            },
        ),
        migrations.AddIndex(
            model_name='batch',
            index=models.Index(fields=['tenant', 'project', '-id'], name='batch_of_project'),
        ),
        migrations.AddIndex(
            model_name='batch',
            index=models.Index(condition=models.Q(('status__in', ['validating', 'in_progress', 'finalizing', 'expiring', 'cancelling'])), fields=['worked_at'], name='batch_open'),
        ),
        migrations.AddConstraint(
            model_name='batch',
            constraint=models.CheckConstraint(condition=models.Q(('status__in', ['validating', 'failed', 'in_progress', 'finalizing', 'completed', 'expiring', 'expired', 'cancelling', 'cancelled'])), name='batch_status_known'),
        ),
        migrations.AddConstraint(
            model_name='batch',
            constraint=models.CheckConstraint(condition=models.Q(('total__gte', django.db.models.expressions.CombinedExpression(models.F('completed'), '+', models.F('failed')))), name='batch_counts_add_up'),
        ),
        migrations.AddConstraint(
            model_name='batch',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('ended_at__isnull', False), ('status__in', ['failed', 'completed', 'expired', 'cancelled'])), models.Q(('ended_at__isnull', True), ('status__in', ['validating', 'in_progress', 'finalizing', 'expiring', 'cancelling'])), _connector='OR'), name='batch_ended_at_iff_ended'),
        ),
        migrations.AddConstraint(
            model_name='batch',
            constraint=models.CheckConstraint(condition=models.Q(('tokens_in__gte', 0), ('tokens_out__gte', 0)), name='batch_tokens'),
        ),
        migrations.AddIndex(
            model_name='batchline',
            index=models.Index(condition=models.Q(('status', 'waiting')), fields=['batch', 'line_no'], name='batch_line_waiting'),
        ),
        migrations.AddConstraint(
            model_name='batchline',
            constraint=models.UniqueConstraint(fields=('batch', 'line_no'), name='batch_line_once'),
        ),
        migrations.AddConstraint(
            model_name='batchline',
            constraint=models.UniqueConstraint(fields=('batch', 'custom_id'), name='batch_line_custom_id_once'),
        ),
        migrations.AddConstraint(
            model_name='batchline',
            constraint=models.UniqueConstraint(fields=('request_id',), name='batch_line_request_once'),
        ),
        migrations.AddConstraint(
            model_name='batchline',
            constraint=models.CheckConstraint(condition=models.Q(('status__in', ['waiting', 'completed', 'failed'])), name='batch_line_status_known'),
        ),
        migrations.AddConstraint(
            model_name='batchline',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('body__isnull', True), ('http_status__isnull', True), ('status', 'waiting')), models.Q(('body__isnull', False), ('http_status__isnull', False), ('status', 'completed')), models.Q(('body__isnull', False), ('status', 'failed')), _connector='OR'), name='batch_line_result_iff_ended'),
        ),
        migrations.AddIndex(
            model_name='storedfile',
            index=models.Index(fields=['tenant', 'project', '-id'], name='batch_file_of_project'),
        ),
        migrations.AddIndex(
            model_name='storedfile',
            index=models.Index(fields=['expires_at'], name='batch_file_expiry'),
        ),
        migrations.AddConstraint(
            model_name='storedfile',
            constraint=models.CheckConstraint(condition=models.Q(('purpose__in', ['batch', 'batch_output'])), name='batch_file_purpose_known'),
        ),
        migrations.AddConstraint(
            model_name='storedfile',
            constraint=models.CheckConstraint(condition=models.Q(('state__in', ['arriving', 'ready', 'leaving'])), name='batch_file_state_known'),
        ),
        migrations.AddConstraint(
            model_name='storedfile',
            constraint=models.CheckConstraint(condition=models.Q(('size_bytes__gte', 0)), name='batch_file_size'),
        ),
        migrations.RunSQL(ISOLATED, migrations.RunSQL.noop),
        migrations.RunSQL(GUARDS, UNDO),
    ]
