"""Contracts: agreed once, never changed, and what they do to invoices."""

from datetime import timedelta

import msgspec
import pytest
from django.db import DatabaseError, IntegrityError, transaction

from billing.invoicing.agree import agree, end
from billing.invoicing.close import close_period
from billing.invoicing.models import InvoiceLine
from billing.invoicing.preview import preview_migrations, preview_version
from billing.invoicing.queries import invoice_with_lines, upcoming_invoice
from billing.pricing.book import ModelPrices
from billing.pricing.contract_queries import contract_at, events_of, list_contracts
from billing.pricing.entry_read import read_entries
from billing.pricing.models import ContractEvent, TenantContract
from billing.pricing.publish import create_draft, publish
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from tenants.scoping import tenant_scope
from tests.billing.rating.agreements import GRADUATED
from tests.billing.world import ingest, lines_of, publish_prices, used, utc
from tests.tenants.test_keys import compiled

pytestmark = pytest.mark.django_db
REQUESTS = {"meter": "requests", "price_model": {"type": "unit", "unit_amount": "0.10"}}


def agreed(tenant, **body):
    return agree(tenant_id=tenant.id, body={"starts_at": "2026-11-01T00:00:00Z"} | body, by="sales")


def kinds(tenant, invoice):
    with tenant_scope(tenant.id):
        return [
            (line.kind, line.amount_minor)
            for line in InvoiceLine.objects.filter(invoice_id=invoice.id).order_by("position")
        ]


@pytest.fixture
def closed(acme, prices):
    """Everything up to November is invoiced."""
    close_period(acme.id, utc(11, 1))
    return acme


def test_a_contract_prices_discounts_and_tops_up_what_its_month_owes(closed, prices):
    made = agreed(
        closed, discount_percent="10", minimum_spend="50", ends_at="2026-11-21T00:00:00Z",
        entries=[REQUESTS | {"match": {"model": "tiny-lm", "service_tier": "standard"}}],
    )  # fmt: skip
    ingest(
        used(closed, prices, utc(11, 5), requests=100, tokens_in=1_000_000),
        used(closed, prices, utc(11, 22)),  # after its end: the book's price, and no discount
    )
    invoice = close_period(closed.id, clock.now())
    assert invoice is not None
    # 20 of November's 30 days: a minimum of 33.33. 2.00 + 10.00 less 1.20 = 10.80 were spent.
    assert kinds(closed, invoice) == [
        ("usage", 200), ("usage", 1000), ("usage", 1), ("discount", -120), ("minimum", 2253),
    ]  # fmt: skip
    assert invoice.total_minor == 3334
    with tenant_scope(closed.id):
        view = invoice_with_lines(invoice.id)
    assert view is not None
    by_kind = {line.kind: line for line in view.lines}
    assert "for 20 of 30 days" in by_kind["minimum"].description
    assert by_kind["discount"].contract_id == made.id


def test_live_spend_is_what_closing_gives_and_owes_no_minimum_before_the_month_is_over(
    closed, prices
):
    agreed(closed, discount_percent="25", minimum_spend="1000")
    ingest(used(closed, prices, utc(11, 5), requests=800))
    with tenant_scope(closed.id):
        live = upcoming_invoice()
    invoice = close_period(closed.id, clock.now())
    assert live is not None
    assert invoice is not None
    assert (live.total_minor, live.content_hash) == (invoice.total_minor, invoice.content_hash)
    assert kinds(closed, invoice) == [("usage", 800), ("discount", -200)]
    with clock.frozen(utc(12, 1)):
        rest = close_period(closed.id, utc(12, 1))
    assert rest is not None
    assert kinds(closed, rest) == [("minimum", 99_400)]


def test_a_replacement_ends_the_old_one_and_each_act_is_an_event(closed):
    first = agreed(closed, discount_percent="5")
    second = agreed(closed, discount_percent="6", starts_at="2026-12-01T00:00:00Z")
    with tenant_scope(closed.id):
        newest, oldest = list_contracts()
        assert (oldest.id, oldest.terms.ends_at) == (first.id, utc(12, 1))
        assert (newest.id, newest.supersedes_id) == (second.id, first.id)
        now, then = contract_at(utc(11, 30)), contract_at(utc(12, 1))
        assert now is not None
        assert then is not None
        assert (now.id, then.id) == (first.id, second.id)
        events = events_of(first.id)
    assert [(each.kind, each.by) for each in events] == [
        ("agreed", "sales"), ("superseded", "sales"),
    ]  # fmt: skip
    assert (events[1].before["ends_at"], events[1].after["ends_at"]) == (
        None, "2026-12-01T00:00:00Z",
    )  # fmt: skip
    with pytest.raises(CallerError) as refused:
        agreed(closed, starts_at="2026-11-15T00:00:00Z")
    assert refused.value.code == "contract_overlaps"
    ended = end(tenant_id=closed.id, contract_id=second.id, at=None, by="sales")
    assert ended.terms.ends_at == ended.terms.starts_at  # it has not begun, and never holds
    with tenant_scope(closed.id):
        assert contract_at(utc(12, 2)) is None


def test_postgresql_refuses_two_contracts_at_once_and_every_change_of_one(closed):
    made = agreed(closed, discount_percent="5")
    with tenant_scope(closed.id):
        row = TenantContract.objects.get(id=made.id)
        rows = TenantContract.objects.filter(id=made.id)
        forbidden = [
            lambda: rows.update(discount_percent=50),
            lambda: rows.update(entries=[]),
            lambda: rows.update(minimum_minor=0),
            lambda: rows.update(starts_at=utc(10, 1)),
            lambda: rows.update(ends_at=utc(12, 1), note="x"),
            lambda: rows._raw_delete("default"),
            lambda: ContractEvent.objects.update(by="nobody"),
            lambda: TenantContract.objects.create(
                tenant_id=closed.id, number=9, book_id=row.book_id, currency="USD",
                starts_at=utc(12, 1), created_by="x",
            ),
        ]  # fmt: skip
        if row.entries == []:
            forbidden[1] = lambda: rows.update(entries=[{}])
        for attempt in forbidden:
            with pytest.raises(DatabaseError), transaction.atomic():
                attempt()
        rows.update(ends_at=utc(12, 1))
        with pytest.raises(IntegrityError), transaction.atomic():
            rows.update(ends_at=utc(12, 2))
        assert TenantContract.objects.get().discount_percent == 5


SENSELESS = [
    ({"starts_at": "2026-10-15T00:00:00Z"}, "contract_invalid", "starts_at"),
    ({"ends_at": "2026-11-01T00:00:00Z"}, "contract_invalid", "ends_at"),
    ({"currency": "EUR"}, "currency_differs", "currency"),
    ({"book": "nowhere"}, "contract_invalid", "book"),
    ({"pinned_version": "00000000-0000-0000-0000-000000000001"}, "contract_invalid",
     "pinned_version"),
    ({"pinned_until": "2026-12-01T00:00:00Z"}, "contract_invalid", "pinned_until"),
    ({"discount_percent": "101"}, "field_invalid", "discount_percent"),
    ({"minimum_spend": "1.001"}, "field_invalid", "minimum_spend"),
    ({"minimum_spend": "-1"}, "field_invalid", "minimum_spend"),
    ({"minimum_spend": "2", "maximum_spend": "1"}, "contract_invalid", "minimum_spend"),
    ({"commitment": "2", "maximum_spend": "1"}, "contract_invalid", "commitment"),
    ({"discont": "1"}, "field_invalid", "discont"),
    ({"entries": [{"meter": "requests"}]}, "field_invalid", "entries[0].price_model"),
    ({"entries": [REQUESTS | {"match": {"model": "a"}},
                  REQUESTS | {"match": {"service_tier": "batch"}}]},
     "entries_ambiguous", "entries"),
]  # fmt: skip


def test_terms_that_make_no_sense_are_refused_and_leave_no_trace(closed):
    for body, code, field in SENSELESS:
        with pytest.raises(CallerError) as refused:
            agreed(closed, **body)
        assert (refused.value.code, refused.value.field) == (code, field), body
        with tenant_scope(closed.id):
            assert not TenantContract.objects.exists()


def test_a_pinned_version_is_kept_until_its_instant_and_then_the_newest_applies(closed, prices):
    agreed(closed, pinned_version=str(prices), pinned_until="2026-11-20T00:00:00Z")
    with clock.frozen(utc(11, 10)):
        dearer = publish_prices({"tiny-lm": ModelPrices(0, 0, 5 * 10**12)})
    ingest(
        # Admitted at the new version, which the contract does not know yet, and knows later.
        used(closed, dearer, utc(11, 15)),
        used(closed, dearer, utc(11, 20)),
    )
    with clock.frozen(utc(11, 15)):
        (delta,) = preview_migrations("standard", utc(11, 1))
        assert (delta.old_minor, delta.new_minor) == (501, 1000)
    invoice = close_period(closed.id, clock.now())
    assert invoice is not None
    assert sorted(line[4] for line in lines_of(closed.id, invoice)) == [1, 500]


def test_requests_are_admitted_at_the_version_of_the_contract(closed, prices):
    def version():
        return compiled(closed.id, closed.key_id).price_version_id

    made = agreed(closed, pinned_version=str(prices))
    dearer = publish_prices({"tiny-lm": ModelPrices(0, 0, 1)})
    assert version() == prices
    end(tenant_id=closed.id, contract_id=made.id, at=None, by="sales")
    with clock.frozen(clock.now() + timedelta(seconds=1)):
        assert version() == dearer


@pytest.mark.parametrize(
    ("currency", "amount_minor"),
    [("JPY", 13), ("KWD", 12_500)],  # 12.5 of it
)
def test_a_tenant_of_another_currency_has_a_contract_on_a_book_in_it(
    late_november, onboard, currency, amount_minor
):
    with clock.frozen(utc(9, 10)):
        tenant = onboard("abroad", currency=currency)
    unit = {"type": "unit", "unit_amount": "0"}
    free = [{"meter": each, "price_model": unit} for each in ("input_tokens", "output_tokens")]
    priced = [{"meter": "requests", "price_model": GRADUATED}]
    draft = create_draft(
        book="abroad", currency=currency, entries=read_entries([*free, *priced], clock.now())
    )
    version = publish(draft.id, confirm=["gap"]).version_id
    agreed(tenant, starts_at="2026-09-01T00:00:00Z", book="abroad")
    assert compiled(tenant.id, tenant.key_id).price_version_id == version
    ingest(used(tenant, version, utc(10, 5), requests=1500))
    october = close_period(tenant.id, utc(11, 1))
    assert october is not None
    assert (october.currency, october.total_minor) == (currency, amount_minor)


def test_another_tenants_contract_is_not_there(closed, onboard):
    made = agreed(closed)
    other = onboard("other")
    with tenant_scope(other.id):
        assert list_contracts() == []
        assert TenantContract._base_manager.count() == 0
        assert ContractEvent._base_manager.count() == 0
    with pytest.raises(CallerError) as refused:
        end(tenant_id=other.id, contract_id=made.id, at=None, by="sales")
    assert refused.value.status == 404


def test_a_preview_tells_who_would_pay_how_much_more(closed, prices, onboard):
    with clock.frozen(utc(9, 10)):
        other = onboard("other")
    ingest(used(closed, prices, utc(10, 5)), used(other, prices, utc(10, 6), requests=300))
    draft = create_draft(
        book="standard", currency="USD", prices={"tiny-lm": ModelPrices(0, 0, 2 * 10**10)}
    )
    told = [(each.tenant, each.old_minor, each.new_minor) for each in preview_version(draft.id)]
    assert told == [("other", 300, 600), ("acme", 1, 2)]


def test_a_preview_tells_apart_where_usage_was_served_though_it_was_billed_without(closed, prices):
    eu = msgspec.structs.replace(used(closed, prices, utc(10, 5), requests=2), region="eu")
    ingest(eu, used(closed, prices, utc(10, 6), requests=5))
    unit = {"type": "unit", "unit_amount": "0"}
    entries = [{"meter": meter, "price_model": unit} for meter in ("input_tokens", "output_tokens")]
    entries += [
        {"meter": "requests", "match": match, "price_model": unit | {"unit_amount": amount}}
        for match, amount in (({}, "1"), ({"region": "eu"}, "10"))
    ]
    draft = create_draft(
        book="standard", currency="USD", entries=read_entries(entries, utc(11, 24))
    )
    (delta,) = preview_version(draft.id)
    assert (delta.old_minor, delta.new_minor, delta.problem) == (7, 2_500, "")
