"""Entries of price books, and what tenants agreed on.

Entries of a version are guarded as its prices are. Contracts and their events are isolated by
tenant; two contracts of a tenant cannot hold at one instant, and what was agreed cannot change.
"""

import django.db.models.deletion
import meterplane.kernel.clock
import meterplane.kernel.ids
from django.db import migrations, models

# 0001's guard of prices asks for nothing but the version: it serves entries too.
ENTRIES = """
CREATE TRIGGER price_entry_guard BEFORE INSERT OR UPDATE OR DELETE ON price_entry
  FOR EACH ROW EXECUTE FUNCTION price_guard();
ALTER TABLE price_entry
  ADD CONSTRAINT price_entry_match_is_an_object CHECK (jsonb_typeof(match) = 'object'),
  ADD CONSTRAINT price_entry_model_has_a_type CHECK (jsonb_typeof(price_model -> 'type') = 'string');
"""

UNDO_ENTRIES = "DROP TRIGGER price_entry_guard ON price_entry"

CONTRACTS = """
SELECT meterplane_isolate('contract');
SELECT meterplane_isolate('contract_event');

-- A contract is in the currency of its book, and pins a version of that book.
ALTER TABLE price_book ADD CONSTRAINT price_book_id_currency UNIQUE (id, currency);
ALTER TABLE price_book_version ADD CONSTRAINT price_version_id_book UNIQUE (id, book_id);
ALTER TABLE contract
  ADD CONSTRAINT contract_in_its_books_currency
    FOREIGN KEY (book_id, currency) REFERENCES price_book (id, currency),
  ADD CONSTRAINT contract_pins_of_its_book
    FOREIGN KEY (pinned_version_id, book_id) REFERENCES price_book_version (id, book_id),
  ADD CONSTRAINT contract_supersedes_same_tenant
    FOREIGN KEY (tenant_id, supersedes_id) REFERENCES contract (tenant_id, id);
ALTER TABLE contract_event ADD CONSTRAINT contract_event_same_tenant
  FOREIGN KEY (tenant_id, contract_id) REFERENCES contract (tenant_id, id);

-- A range over ids, so that "the same tenant" can be part of an exclusion without an extension.
CREATE TYPE uuid_span AS RANGE (subtype = uuid);
ALTER TABLE contract ADD CONSTRAINT contract_one_at_a_time EXCLUDE USING gist (
  uuid_span(tenant_id, tenant_id, '[]') WITH &&, tstzrange(starts_at, ends_at) WITH &&);

CREATE FUNCTION contract_guard() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  IF TG_OP = 'UPDATE'
     AND to_jsonb(NEW) - 'ends_at' = to_jsonb(OLD) - 'ends_at'
     AND NEW.ends_at IS NOT NULL AND (OLD.ends_at IS NULL OR NEW.ends_at < OLD.ends_at) THEN
    RETURN NEW;
  END IF;
  RAISE EXCEPTION 'what contract % of % says cannot change', OLD.number, OLD.tenant_id
    USING ERRCODE = 'restrict_violation';
END $body$;
CREATE TRIGGER contract_guard BEFORE UPDATE OR DELETE ON contract
  FOR EACH ROW EXECUTE FUNCTION contract_guard();

CREATE FUNCTION contract_event_guard() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  RAISE EXCEPTION 'events of contracts are written once' USING ERRCODE = 'restrict_violation';
END $body$;
CREATE TRIGGER contract_event_guard BEFORE UPDATE OR DELETE ON contract_event
  FOR EACH ROW EXECUTE FUNCTION contract_event_guard();
REVOKE DELETE ON contract FROM meterplane_app, meterplane_system;
REVOKE UPDATE, DELETE ON contract_event FROM meterplane_app, meterplane_system;
"""

UNDO_CONTRACTS = """
DROP TRIGGER contract_event_guard ON contract_event;
DROP FUNCTION contract_event_guard();
DROP TRIGGER contract_guard ON contract;
DROP FUNCTION contract_guard();
ALTER TABLE contract DROP CONSTRAINT contract_one_at_a_time,
  DROP CONSTRAINT contract_in_its_books_currency, DROP CONSTRAINT contract_pins_of_its_book;
DROP TYPE uuid_span;
ALTER TABLE price_book DROP CONSTRAINT price_book_id_currency;
ALTER TABLE price_book_version DROP CONSTRAINT price_version_id_book;
"""


class Migration(migrations.Migration):

    dependencies = [
        ("pricing", "0002_batch_prices"),
        ("tenants", "0008_plan_restrictions"),
    ]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.CreateModel(
            name='TenantContract',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('number', models.PositiveIntegerField()),
                ('note', models.CharField(blank=True, default='', max_length=200)),
                ('currency', models.CharField(max_length=3)),
                ('starts_at', models.DateTimeField()),
                ('ends_at', models.DateTimeField(blank=True, null=True)),
                ('pinned_until', models.DateTimeField(blank=True, null=True)),
                ('discount_percent', models.DecimalField(decimal_places=6, default=0, max_digits=9)),
                ('commitment_minor', models.BigIntegerField(blank=True, null=True)),
                ('minimum_minor', models.BigIntegerField(blank=True, null=True)),
                ('maximum_minor', models.BigIntegerField(blank=True, null=True)),
                ('entries', models.JSONField(blank=True, default=list)),
                ('created_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('created_by', models.CharField(max_length=120)),
                ('book', models.ForeignKey(on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='pricing.pricebook')),
                ('pinned_version', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='pricing.pricebookversion')),
                ('supersedes', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='pricing.tenantcontract')),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation')),
            ],
            options={
                'verbose_name': 'contract',
                'db_table': 'contract',
                'ordering': ['-number'],
            },
        ),
        migrations.CreateModel(
            name='ContractEvent',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('kind', models.CharField(choices=[('agreed', 'Agreed'), ('superseded', 'Superseded'), ('ended', 'Ended')], max_length=16)),
                ('at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('by', models.CharField(max_length=120)),
                ('before', models.JSONField(null=True)),
                ('after', models.JSONField()),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation')),
                ('contract', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='events', to='pricing.tenantcontract')),
            ],
            options={
                'db_table': 'contract_event',
                'ordering': ['at', 'id'],
            },
        ),
        migrations.CreateModel(
            name='PriceEntry',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('position', models.PositiveIntegerField()),
                ('meter', models.CharField(max_length=64)),
                ('match', models.JSONField(blank=True, default=dict)),
                ('price_model', models.JSONField()),
                ('display_name', models.CharField(max_length=120)),
                ('version', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='entries', to='pricing.pricebookversion')),
            ],
            options={
                'verbose_name_plural': 'price entries',
                'db_table': 'price_entry',
                'ordering': ['version', 'position'],
                'constraints': [models.UniqueConstraint(fields=('version', 'position'), name='price_entry_place_once'), models.UniqueConstraint(fields=('version', 'meter', 'match'), name='price_entry_matches_once'), models.CheckConstraint(condition=models.Q(('meter__regex', '^[a-z][a-z0-9_-]{0,63}$')), name='price_entry_meter_safe')],
            },
        ),
        migrations.AddConstraint(
            model_name='tenantcontract',
            constraint=models.UniqueConstraint(fields=('tenant', 'number'), name='contract_number_once'),
        ),
        migrations.AddConstraint(
            model_name='tenantcontract',
            constraint=models.CheckConstraint(condition=models.Q(('ends_at__isnull', True), ('ends_at__gte', models.F('starts_at')), _connector='OR'), name='contract_ends_after_it_starts'),
        ),
        migrations.AddConstraint(
            model_name='tenantcontract',
            constraint=models.CheckConstraint(condition=models.Q(('pinned_until__isnull', True), ('pinned_version__isnull', False), _connector='OR'), name='contract_pins_a_version'),
        ),
        migrations.AddConstraint(
            model_name='tenantcontract',
            constraint=models.CheckConstraint(condition=models.Q(('discount_percent__gte', 0), ('discount_percent__lte', 100)), name='contract_discount_is_a_part'),
        ),
        migrations.AddConstraint(
            model_name='tenantcontract',
            constraint=models.CheckConstraint(condition=models.Q(('commitment_minor__isnull', True), ('commitment_minor__gte', 0), _connector='OR'), name='contract_commitment_not_negative'),
        ),
        migrations.AddConstraint(
            model_name='tenantcontract',
            constraint=models.CheckConstraint(condition=models.Q(('minimum_minor__isnull', True), ('minimum_minor__gte', 0), _connector='OR'), name='contract_minimum_not_negative'),
        ),
        migrations.AddConstraint(
            model_name='tenantcontract',
            constraint=models.CheckConstraint(condition=models.Q(('maximum_minor__isnull', True), models.Q(('maximum_minor__gte', 0), models.Q(('minimum_minor__isnull', True), ('minimum_minor__lte', models.F('maximum_minor')), _connector='OR'), models.Q(('commitment_minor__isnull', True), ('commitment_minor__lte', models.F('maximum_minor')), _connector='OR')), _connector='OR'), name='contract_maximum_holds_the_others'),
        ),
        migrations.AddConstraint(
            model_name='tenantcontract',
            constraint=models.CheckConstraint(condition=models.Q(('currency__regex', '^[A-Z]{3}$')), name='contract_currency_iso'),
        ),
        migrations.RunSQL(ENTRIES, UNDO_ENTRIES),
        migrations.RunSQL(CONTRACTS, UNDO_CONTRACTS),
    ]
