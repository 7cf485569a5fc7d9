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
from billing.pricing.contract_queries import contract_at, contracts_between
from billing.pricing.publish import draft_as_book
from billing.pricing.queries import published_version, timeline_of
from billing.rating.preview import Case, Delta, compare, repinned, worst_first
from billing.rating.values import Account, Period, month_after
from meterplane.kernel import clock
from tenants.models import Organisation
from tenants.queries import organisation
from tenants.scoping import system_scope, tenant_scope
from tenants.synthetic import is_synthetic


def preview_version(version_id: UUID, month: datetime | None = None) -> list[Delta]:
    """Every tenant with usage at the book's prices in `month` (the last whole one); worst first.

    Raises `CallerError` `version_missing` or `version_not_draft`.
    """
    draft = draft_as_book(version_id)
    moved = [each.version_id for each in timeline_of(draft.book)]
    start = month_of(month or _last_month(clock.now()))
    period = Period(start, month_after(start))
    deltas = (_delta(tenant, period, draft, moved) for tenant in _organisations())
    return worst_first(delta for delta in deltas if delta is not None)


def preview_migrations(book: str, month: datetime | None = None) -> list[Delta]:
    """Every tenant whose contract keeps a version of `book`: what it would have paid for a month
    with all of its usage at the version that applies now. Worst first."""
    now = clock.now()
    newest = published_version(now, book)
    start = month_of(month or _last_month(now))
    deltas = []
    for tenant in _organisations():
        with tenant_scope(tenant.id):
            contract = contract_at(now)
            if newest is None or contract is None or contract.terms.book != book:
                continue
            if contract.terms.pinned_at(now) is not None:
                deltas.append(_compared(Period(start, month_after(start)), newest, None))
    return worst_first(deltas)


def _delta(
    tenant: Organisation, period: Period, draft: PublishedBook, moved: list[UUID]
) -> Delta | None:
    """None for a tenant the draft does not concern: one that used nothing at the book's prices, or
    whose contract keeps a version beyond now."""
    now = clock.now()
    with tenant_scope(tenant.id):
        contract = contract_at(now)
        if contract is not None and contract.terms.pinned_at(now) is not None:
            return None
        reader = UsageReader(contracts_between(period.starts_at, period.ends_at))
        pins = {each.price_version_id for each in reader.quantities_of(period)}
        return _compared(period, draft, {*moved}) if pins & {*moved} else None


def _compared(period: Period, to: PublishedBook, moved: set[UUID] | None) -> Delta:
    """The usage of the open door, with those pins moved; None: all of them."""
    ours = organisation()
    contracts = contracts_between(period.starts_at, period.ends_at)
    reader = UsageReader(contracts)
    quantities = reader.quantities_of(period)
    pins = moved or {each.price_version_id for each in quantities}
    then = UsageReader(contracts, instead=dict.fromkeys(pins, to))
    moved_quantities = repinned(then.quantities_of(period), pins, to.version_id)
    return compare(
        Case(
            tenant=ours.slug,
            currency=ours.currency,
            quantities=quantities,
            prices=reader.prices_for(quantities),
            then_quantities=moved_quantities,
            then_prices={**then.prices_for(moved_quantities), to.version_id: to},
            account=Account((period,), (), {each.id: each for each in contracts}),
        )
    )


def _organisations() -> Iterator[Organisation]:
    with system_scope("a preview of prices looks at every organisation"):
        rows = list(Organisation.objects.order_by("slug"))
    yield from (each for each in rows if not is_synthetic(each))


def _last_month(now: datetime) -> datetime:
    return month_of(month_of(now) - timedelta(days=1))
