"""Price books whose published versions cannot change."""

import django.db.models.deletion
import meterplane.kernel.clock
import meterplane.kernel.ids
from django.db import migrations, models



IMMUTABLE = """
CREATE FUNCTION price_version_guard() RETURNS trigger LANGUAGE plpgsql AS $body$
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
CREATE TRIGGER price_version_guard BEFORE UPDATE OR DELETE ON price_book_version
  FOR EACH ROW EXECUTE FUNCTION price_version_guard();

CREATE FUNCTION price_guard() RETURNS trigger LANGUAGE plpgsql AS $body$
DECLARE
  touched uuid;
  its_status text;
BEGIN
  FOREACH touched IN ARRAY CASE TG_OP
    WHEN 'INSERT' THEN ARRAY[NEW.version_id]
    WHEN 'DELETE' THEN ARRAY[OLD.version_id]
    ELSE ARRAY[OLD.version_id, NEW.version_id] END
  LOOP
    -- FOR SHARE: waits for a publication in flight, then sees its outcome.
    SELECT status INTO its_status FROM price_book_version WHERE id = touched FOR SHARE;
    IF its_status <> 'draft' THEN
      RAISE EXCEPTION 'the prices of a % version cannot change', its_status
        USING ERRCODE = 'restrict_violation';
    END IF;
  END LOOP;
  RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END $body$;
CREATE TRIGGER price_guard BEFORE INSERT OR UPDATE OR DELETE ON price
  FOR EACH ROW EXECUTE FUNCTION price_guard();
"""

UNDO = """
DROP TRIGGER price_guard ON price;
DROP FUNCTION price_guard();
DROP TRIGGER price_version_guard ON price_book_version;
DROP FUNCTION price_version_guard();
"""


class Migration(migrations.Migration):

    initial = True

    dependencies = [
    ]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.CreateModel(
            name='PriceBook',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('name', models.CharField(max_length=80, unique=True)),
                ('currency', models.CharField(max_length=3)),
                ('created_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
            ],
            options={
                'db_table': 'price_book',
                'ordering': ['name'],
                'constraints': [models.CheckConstraint(condition=models.Q(('currency__regex', '^[A-Z]{3}$')), name='price_book_currency_iso')],
            },
        ),
        migrations.CreateModel(
            name='PriceBookVersion',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('number', models.PositiveIntegerField()),
                ('status', models.CharField(choices=[('draft', 'Draft'), ('published', 'Published'), ('superseded', 'Superseded')], default='draft', max_length=16)),
                ('effective_at', models.DateTimeField(blank=True, null=True)),
                ('published_at', models.DateTimeField(blank=True, null=True)),
                ('superseded_at', models.DateTimeField(blank=True, null=True)),
                ('created_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('book', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='versions', to='pricing.pricebook')),
            ],
            options={
                'db_table': 'price_book_version',
                'ordering': ['book', '-number'],
            },
        ),
        migrations.CreateModel(
            name='Price',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('model', models.CharField(max_length=80)),
                ('meter', models.CharField(choices=[('input_tokens', 'Input tokens'), ('output_tokens', 'Output tokens'), ('requests', 'Requests')], max_length=16)),
                ('unit_price_pico', models.BigIntegerField()),
                ('version', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='prices', to='pricing.pricebookversion')),
            ],
            options={
                'db_table': 'price',
                'ordering': ['model', 'meter'],
            },
        ),
        migrations.AddConstraint(
            model_name='pricebookversion',
            constraint=models.UniqueConstraint(fields=('book', 'number'), name='price_version_number_once'),
        ),
        migrations.AddConstraint(
            model_name='pricebookversion',
            constraint=models.UniqueConstraint(condition=models.Q(('status', 'published')), fields=('book',), name='price_version_one_published'),
        ),
        migrations.AddConstraint(
            model_name='pricebookversion',
            constraint=models.UniqueConstraint(fields=('book', 'effective_at'), name='price_version_starts_once'),
        ),
        migrations.AddConstraint(
            model_name='pricebookversion',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('effective_at__isnull', True), ('published_at__isnull', True), ('status', 'draft'), ('superseded_at__isnull', True)), models.Q(('effective_at__isnull', False), ('published_at__isnull', False), ('status', 'published'), ('superseded_at__isnull', True)), models.Q(('effective_at__isnull', False), ('published_at__isnull', False), ('status', 'superseded'), ('superseded_at__gt', models.F('effective_at'))), _connector='OR'), name='price_version_instants_follow_status'),
        ),
        migrations.AddConstraint(
            model_name='price',
            constraint=models.UniqueConstraint(fields=('version', 'model', 'meter'), name='price_once'),
        ),
        migrations.AddConstraint(
            model_name='price',
            constraint=models.CheckConstraint(condition=models.Q(('meter__in', ['input_tokens', 'output_tokens', 'requests'])), name='price_meter_known'),
        ),
        migrations.AddConstraint(
            model_name='price',
            constraint=models.CheckConstraint(condition=models.Q(('unit_price_pico__gte', 0)), name='price_not_negative'),
        ),
        migrations.RunSQL(IMMUTABLE, UNDO),
    ]
