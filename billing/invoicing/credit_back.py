"""What an invoice gives back of the credit that earlier ones drew, because it corrects them down.

A month that is owed less than invoices say (late usage reprices it, a contract is amended, a volume
price falls that an interim invoice billed) is first given back what they drew for it, and only the
rest is money. So credit never becomes money, and a tax is given back of nothing that bore none:
what comes back is a line above zero beside the correction below zero, and taxes are of the sum.

Guarantees, for each calendar month that the new invoice corrects down in sum: no more comes back
than it corrects, nor than is still drawn by invoices that have lines of that month, nor than those
lines are, however often it is corrected. The newest invoice gives back first, and of each what it
drew last. A grant takes back what it may pay: of what one for another model or meter could not have
paid, nothing.

Grants that have expired take back too, and are written off by the next sweep (`credits.restore`).
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Q, Sum

from billing.credits.cover import Payable, Payer, covered
from billing.credits.models import CreditGrant
from billing.credits.restore import restore_parts, still_drawn
from billing.invoicing.models import CreditGivenBack, InvoiceLine
from billing.invoicing.usage import month_after, month_of
from billing.ledger.accounts import revenue
from billing.rating.rate import RatedLine
from meterplane.kernel.money import split_by_largest_remainder

Key = tuple[str, str]  # model and meter, each empty where a line is of none


@dataclass(frozen=True, slots=True)
class GivenBack:
    """What comes back of one earlier invoice for one month, and what lines of that pays."""

    drawn_by: UUID
    month: datetime
    parts: tuple[tuple[CreditGrant, int], ...]
    lines: tuple[Payable, ...]

    @property
    def amount_minor(self) -> int:
        return sum(amount for _, amount in self.parts)


@dataclass(frozen=True, slots=True)
class _Drawn(Payer):
    """What a grant paid of one invoice. `keys` are that invoice's lines.

    A tiered line names a model where it matched one, and none where it matched several: late usage
    of another model corrects it nevertheless. What is of no meter, as a discount, corrects all.
    """

    keys: tuple[Key, ...] = ()

    def pays(self, model: str, meter: str) -> bool:
        return any(
            meter in ("", of_meter)
            and (model in ("", of_model) or not of_model)
            and Payer.pays(self, of_model, of_meter)
            for of_model, of_meter in self.keys
        )


def to_give_back(
    lines: Iterable[RatedLine], already: Iterable[Payable], starts_at: datetime
) -> list[GivenBack]:
    """What an invoice of these lines gives back. Needs the tenant's door; writes nothing.

    `already` is what interim invoices billed of the period that starts then, below zero.
    """
    owed: dict[datetime, dict[Key, int]] = defaultdict(lambda: defaultdict(int))
    for line in lines:
        owed[month_of(line.period.starts_at)][line.model, line.meter] += line.amount_minor
    for billed in already:
        owed[month_of(starts_at)][billed.model, billed.meter] += billed.amount_minor
    found: list[GivenBack] = []
    for month, sums in sorted(owed.items()):
        if sum(sums.values()) < 0:
            found += _of_month(month, sums, found)
    return found


def give_back(tenant_id: UUID, invoice_id: UUID, planned: Iterable[GivenBack]) -> None:
    """Do what was planned, for the invoice that is being written. Needs the tenant's door, this
    organisation's turn (`credits.turns`), and an invoice of that id by the end of the transaction.
    """
    for each in planned:
        row = CreditGivenBack.objects.create(
            tenant_id=tenant_id,
            invoice_id=invoice_id,
            drawn_by_id=each.drawn_by,
            month=each.month,
            amount_minor=each.amount_minor,
        )
        restore_parts(
            tenant_id=tenant_id, invoice_id=each.drawn_by, source_id=row.id, restored=each.parts
        )


def given_back_of(invoice_ids: Iterable[UUID]) -> dict[UUID, int]:
    """Of what these invoices drew, what later ones gave back. Needs the door."""
    rows = CreditGivenBack.objects.filter(drawn_by_id__in=list(invoice_ids)).order_by()
    return dict(rows.values_list("drawn_by_id").annotate(sum=Sum("amount_minor")))


def given_back_by_account(invoice_ids: Collection[UUID]) -> dict[UUID, Mapping[str, int]]:
    """Of these invoices, what each gave back of earlier ones' credit less what later ones gave back
    of its own, by the accounts of the lines that were corrected. Needs the door.

    When one of the two is voided, that is what the other one's correction leaves standing.
    """
    found: dict[UUID, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for row, parts in _by_account(Q(invoice_id__in=invoice_ids) | Q(drawn_by_id__in=invoice_ids)):
        for account, part in parts.items():
            found[row.invoice_id][account] += part
            found[row.drawn_by_id][account] -= part
    return {invoice_id: found[invoice_id] for invoice_id in invoice_ids if invoice_id in found}


def gave_back_by_account(invoice_ids: Collection[UUID]) -> dict[UUID, Mapping[str, int]]:
    """The first half of `given_back_by_account`, which is known once the invoice is written."""
    found: dict[UUID, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    if invoice_ids:
        for row, parts in _by_account(Q(invoice_id__in=invoice_ids)):
            for account, part in parts.items():
                found[row.invoice_id][account] += part
    return dict(found)


def _by_account(which: Q) -> Iterator[tuple[CreditGivenBack, dict[str, int]]]:
    rows = list(CreditGivenBack.objects.filter(which).order_by("id"))
    corrected = _corrected_by_account({row.invoice_id for row in rows})
    for row in rows:
        weights = corrected[row.invoice_id, row.month]
        parts = split_by_largest_remainder(row.amount_minor, list(weights.values()))
        yield row, dict(zip(weights, parts, strict=True))


def _corrected_by_account(
    invoice_ids: Collection[UUID],
) -> dict[tuple[UUID, datetime], dict[str, int]]:
    """What each invoice takes from each month, by account; above zero."""
    if not invoice_ids:
        return {}
    rows = (
        InvoiceLine.objects.filter(invoice_id__in=invoice_ids)
        .exclude(kind=InvoiceLine.Kind.CREDIT)
        .order_by("meter", "kind", "period_start")
        .values_list("invoice_id", "period_start", "meter", "kind")
        .annotate(sum=Sum("amount_minor"))
    )
    sums: dict[tuple[UUID, datetime], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for invoice_id, starts_at, meter, kind, amount_minor in rows:
        sums[invoice_id, month_of(starts_at)][revenue(meter or kind)] -= int(amount_minor)
    return {
        place: {account: amount for account, amount in of.items() if amount > 0}
        for place, of in sums.items()
    }


def _of_month(
    month: datetime, owed: dict[Key, int], before: list[GivenBack]
) -> Iterator[GivenBack]:
    said = _said_of(month)
    drawn = still_drawn(list(said))
    returned: dict[UUID, int] = defaultdict(int)  # of this month's lines, by earlier corrections
    for drawn_by, amount_minor in CreditGivenBack.objects.filter(month=month).values_list(
        "drawn_by_id", "amount_minor"
    ):
        returned[drawn_by] += amount_minor
    taken: dict[tuple[UUID, UUID], int] = defaultdict(int)  # by other months of this invoice
    for each in before:
        for row, amount_minor in each.parts:
            taken[each.drawn_by, row.id] += amount_minor
    wanted = -sum(owed.values())
    lowered = {key: -amount_minor for key, amount_minor in owed.items() if amount_minor < 0}
    for invoice_id, of in said.items():
        keys = tuple(sorted(key for key, amount_minor in of.items() if amount_minor > 0))
        grants = [row for row, _ in reversed(drawn[invoice_id])]
        payers = [
            _Drawn(
                amount_minor - taken[invoice_id, row.id],
                frozenset(row.models_only),
                frozenset(row.meters_only),
                keys,
            )
            for row, amount_minor in reversed(drawn[invoice_id])
        ]
        at_most = min(wanted, sum(of.values()) - returned[invoice_id])
        if not payers or at_most <= 0:
            continue
        lines = [Payable(*key, amount_minor) for key, amount_minor in lowered.items()]
        paid, paid_for = covered(payers, lines, at_most)
        parts = tuple((row, part) for row, part in zip(grants, paid, strict=True) if part)
        if parts:
            wanted -= sum(paid)
            for line in paid_for:
                lowered[line.model, line.meter] -= line.amount_minor
            yield GivenBack(invoice_id, month, parts, tuple(paid_for))


def _said_of(month: datetime) -> dict[UUID, dict[Key, int]]:
    """What each invoice says of a month, by model and meter; the newest invoice first."""
    rows = (
        InvoiceLine.objects.filter(period_start__gte=month, period_start__lt=month_after(month))
        .exclude(kind=InvoiceLine.Kind.CREDIT)
        .order_by("-invoice__period_end", "invoice_id", "model", "meter")
        .values_list("invoice__period_end", "invoice_id", "model", "meter")
        .annotate(sum=Sum("amount_minor"))
    )
    said: dict[UUID, dict[Key, int]] = defaultdict(dict)
    for _, invoice_id, model, meter, amount_minor in rows:
        said[invoice_id][model, meter] = int(amount_minor)
    return said
