"""What a draft version, or a scheduled move to the newest one, would change: tenant by tenant.

Rates last month's usage of every tenant twice with the function that makes invoices: as it is, and
with what is pinned to a version of the book moved to the other one. Reads only, one tenant's door
at a time; invoices of that month are left aside, because the question is about prices.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from uuid import UUID

from billing.invoicing.usage import UsageReader, month_of
from billing.pricing.book import PublishedBook
from billing.pricing.contract_queries import contracts_between
from billing.pricing.publish import draft_as_book
from billing.pricing.queries import timeline_of
from billing.rating.preview import Case, Delta, compare, repinned, worst_first
from billing.rating.values import Account, Period, Quantity, month_after
from meterplane.kernel import clock
from tenants.models import Organisation
from tenants.scoping import system_scope, tenant_scope
from tenants.synthetic import is_synthetic


def preview_version(version_id: UUID, month: datetime | None = None) -> list[Delta]:
    """Every tenant with usage at the book's prices in `month` (the last whole one); worst first.

    Raises `CallerError` `version_missing` or `version_not_draft`.
    """
    draft = draft_as_book(version_id)
    moved = [each for _, each in timeline_of(draft.book)]
    start = month_of(month or _last_month(clock.now()))
    period = Period(start, month_after(start))
    return worst_first(
        delta
        for organisation in _organisations()
        if (delta := _delta(organisation, period, draft, moved)) is not None
    )


def preview_migration(tenant_id: UUID, to: PublishedBook, month: datetime | None = None) -> Delta:
    """What one tenant, whose contract keeps a version, would pay at version `to`."""
    start = month_of(month or _last_month(clock.now()))
    with system_scope("a preview names one organisation"):
        organisation = Organisation.objects.get(id=tenant_id)
    period = Period(start, month_after(start))
    with tenant_scope(tenant_id):
        reader = UsageReader(contracts_between(period.starts_at, period.ends_at))
        quantities = reader.quantities_of(period)
        pins = {each.price_version_id for each in quantities}
        return compare(_case(organisation, period, reader, quantities, to, pins))


def _delta(
    organisation: Organisation, period: Period, draft: PublishedBook, moved: list[UUID]
) -> Delta | None:
    with tenant_scope(organisation.id):
        reader = UsageReader(contracts_between(period.starts_at, period.ends_at))
        quantities = reader.quantities_of(period)
        kept = {
            each.terms.pinned_version_id
            for each in reader.contracts
            if each.terms.pinned_at(clock.now()) is not None
        }
        pins = {*moved} - kept
        if not any(each.price_version_id in pins for each in quantities):
            return None
        return compare(_case(organisation, period, reader, quantities, draft, pins))


def _case(
    organisation: Organisation,
    period: Period,
    reader: UsageReader,
    quantities: list[Quantity],
    to: PublishedBook,
    pins: set[UUID],
) -> Case:
    account = Account((period,), (), {each.id: each for each in reader.contracts})
    prices = reader.prices_for(quantities)
    return Case(
        tenant=organisation.slug,
        currency=organisation.currency,
        quantities=quantities,
        prices=prices,
        then_quantities=repinned(quantities, pins, to.version_id),
        then_prices={**prices, to.version_id: to},
        account=account,
    )


def _organisations() -> Iterator[Organisation]:
    with system_scope("a preview of prices looks at every organisation"):
        rows = list(Organisation.objects.order_by("slug"))
    yield from (each for each in rows if not is_synthetic(each))


def _last_month(now: datetime) -> datetime:
    return month_of(month_of(now) - timedelta(days=1))
