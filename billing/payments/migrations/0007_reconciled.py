"""Events that never came, and ours against theirs, both ways."""

import django.db.models.functions.datetime
import meterplane.kernel.clock
import meterplane.kernel.ids
from django.db import migrations, models


SYSTEM_ONLY = """
-- They tell of every tenant: no policy, so only the system's role sees any.
ALTER TABLE event_watermark ENABLE ROW LEVEL SECURITY;
ALTER TABLE event_watermark FORCE ROW LEVEL SECURITY;
ALTER TABLE reconciled_day ENABLE ROW LEVEL SECURITY;
ALTER TABLE reconciled_day FORCE ROW LEVEL SECURITY;
ALTER TABLE payment_finding ENABLE ROW LEVEL SECURITY;
ALTER TABLE payment_finding FORCE ROW LEVEL SECURITY;
-- What was found is closed, and not taken away.
REVOKE DELETE ON payment_finding FROM meterplane_app, meterplane_system;
"""


class Migration(migrations.Migration):

    dependencies = [("payments", "0005_corrections")]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.CreateModel(
            name='EventWatermark',
            fields=[
                ('provider', models.CharField(max_length=16, primary_key=True, serialize=False)),
                ('read_until', models.DateTimeField()),
            ],
            options={
                'db_table': 'event_watermark',
            },
        ),
        migrations.AddField(
            model_name='webhookevent',
            name='failure',
            field=models.CharField(blank=True, db_default='', default='', max_length=300),
        ),
        migrations.AddField(
            model_name='webhookevent',
            name='failures',
            field=models.PositiveIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name='webhookevent',
            name='origin',
            field=models.CharField(choices=[('delivered', 'Delivered'), ('listed', 'Found in the list')], db_default='delivered', default='delivered', max_length=16),
        ),
        migrations.AddField(
            model_name='webhookevent',
            name='try_at',
            field=models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), default=meterplane.kernel.clock.now),
        ),
        migrations.CreateModel(
            name='PaymentFinding',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('provider', models.CharField(max_length=16)),
                ('day', models.DateField()),
                ('kind', models.CharField(choices=[('invoice', 'Invoice'), ('payment', 'Payment'), ('refund', 'Refund'), ('credit_note', 'Credit note'), ('clearing', 'Clearing account')], max_length=16)),
                ('problem', models.CharField(choices=[('missing_there', 'Missing there'), ('missing_here', 'Missing here'), ('different', 'Different'), ('left_over', 'Not cleared')], max_length=16)),
                ('our_id', models.CharField(blank=True, default='', max_length=64)),
                ('their_id', models.CharField(blank=True, default='', max_length=64)),
                ('said', models.TextField()),
                ('opened_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('seen_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('closed_at', models.DateTimeField(blank=True, null=True)),
            ],
            options={
                'db_table': 'payment_finding',
                'ordering': ['-opened_at', '-id'],
                'constraints': [models.UniqueConstraint(condition=models.Q(('closed_at__isnull', True)), fields=('provider', 'kind', 'problem', 'our_id', 'their_id'), name='payment_finding_open_once'), models.CheckConstraint(condition=models.Q(models.Q(('our_id__gt', ''), ('problem__in', ['missing_there', 'left_over'])), models.Q(('problem', 'missing_here'), ('their_id__gt', '')), models.Q(('our_id__gt', ''), ('problem', 'different'), ('their_id__gt', '')), _connector='OR'), name='payment_finding_names_a_side'), models.CheckConstraint(condition=models.Q(('closed_at__isnull', True), ('closed_at__gte', models.F('opened_at')), _connector='OR'), name='payment_finding_closed_after')],
            },
        ),
        migrations.CreateModel(
            name='ReconciledDay',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('provider', models.CharField(max_length=16)),
                ('day', models.DateField()),
                ('due_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('compared_at', models.DateTimeField(blank=True, null=True)),
                ('compared', models.PositiveIntegerField(default=0)),
            ],
            options={
                'db_table': 'reconciled_day',
                'ordering': ['-day'],
                'constraints': [models.UniqueConstraint(fields=('provider', 'day'), name='reconciled_day_once')],
            },
        ),
        migrations.RunSQL(SYSTEM_ONLY, migrations.RunSQL.noop),
    ]
