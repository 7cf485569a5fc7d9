"""A tenant's months told by their days: what happens, and what paper and books say then, as text.

Everything is done by the product's own functions on PostgreSQL; the clock stands at the instant an
act is told of. Tables are compared by their words: how far apart the columns stand is the reader's.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from billing.credits import queries
from billing.credits.grant import grant
from billing.credits.models import CreditRemaining
from billing.credits.terms import GrantTerms
from billing.invoicing.advance import News, advance
from billing.invoicing.agree import agree
from billing.invoicing.close import close_period
from billing.invoicing.credit import LineAsked, create_credit_note
from billing.invoicing.interim import make_interim
from billing.invoicing.models import Invoice, InvoiceLine, InvoiceTax
from billing.invoicing.rerate import rerate
from billing.invoicing.tasks import expire_credit_of
from billing.invoicing.thresholds import set_threshold
from billing.ledger.audit import audit
from billing.ledger.queries import balances
from billing.pricing.contract import Contract
from billing.pricing.entry_read import read_entries
from billing.pricing.publish import create_draft, publish
from meterplane.contracts.usage import Settle
from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from meterplane.kernel.money import minor_digits, minor_to_text
from tenants.scoping import tenant_scope
from tests.billing.world import ingest
from tests.conftest import OnboardedOrganisation
from tests.metering.segments import settle


def instant(text: str) -> datetime:
    """`2023-04-03`, midnight, or `2023-04-15 23:59:59.999`; UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@contextmanager
def on(text: str) -> Iterator[datetime]:
    """The clock stands at that instant."""
    at = instant(text)
    with clock.frozen(at):
        yield at


def table(text: str) -> list[str]:
    """Lines as their words: two spaces or more are one gap between columns."""
    return [re.sub(r" {2,}", " | ", line.strip()) for line in text.strip().splitlines()]


def price_model(text: str) -> dict[str, Any]:
    """`0.01` · `package 10 at 7` · `graduated 1000 at 0.01, on at 0.005 + 2` (2 is flat)."""
    kind, _, rest = text.partition(" ")
    if not rest:
        return {"type": "unit", "unit_amount": kind}
    if kind == "package":
        size, _, amount = rest.partition(" at ")
        return {"type": "package", "package_size": size, "package_amount": amount}
    tiers: list[dict[str, Any]] = []
    for part in rest.split(", "):
        up_to, _, told = part.partition(" at ")
        unit, _, flat = told.partition(" + ")
        tiers.append({"up_to": None if up_to == "on" else up_to, "unit_amount": unit})
        if flat:
            tiers[-1]["flat_amount"] = flat
    return {"type": kind, "tiers": tiers}


def entries(text: str) -> list[dict[str, Any]]:
    """A price list, one entry a line: meter, `all` or `model=tiny-lm`, price model."""
    found = []
    for line in table(text):
        meter, match, model = line.split(" | ")
        named = {} if match == "all" else dict(each.split("=") for each in match.split())
        name = meter if match == "all" else f"{meter} of {' '.join(named.values())}"
        found.append(
            {
                "meter": meter,
                "match": named,
                "price_model": price_model(model),
                "display_name": name,
            }
        )
    return found


def published(prices: str, currency: str = "USD", starts: str = "") -> UUID:
    """The id of a version of these prices, published now and applying from that day on."""
    book = "standard" if currency == "USD" else currency.lower()
    read = read_entries(entries(prices), clock.now())
    draft = create_draft(book=book, currency=currency, entries=read)
    effective_at = instant(starts) if starts else None
    return publish(draft.id, effective_at=effective_at, confirm=["gap"]).version_id


@dataclass(slots=True)
class Story:
    """One tenant, the version of its prices, and everything that happens to it."""

    tenant: OnboardedOrganisation
    version: UUID
    currency: str

    @classmethod
    def begun(cls, tenant: OnboardedOrganisation, prices: str, currency: str) -> "Story":
        """At these prices: the standard book's, or of a book of their own in another currency."""
        return cls(tenant, published(prices, currency), currency)

    # -- what happens

    def event(self, when: datetime, version: UUID | None = None, **told: Any) -> Settle:
        """One request admitted then; without tokens, and of tiny-lm, unless told otherwise."""
        at_ms = clock.to_ms(when)
        return settle(
            self.tenant,
            at_ms=at_ms,
            request_id=uuid7(at_ms),
            currency=self.currency,
            price_version_id=version or self.version,
            **{"tokens_in": 0, "tokens_out": 0} | told,
        )

    def uses(self, when: str, **told: Any) -> None:
        """`event`, which arrives then, or now if that is later."""
        at = instant(when)
        with clock.frozen(max(at, clock.now())):
            ingest(self.event(at, **told))

    def agrees(self, starts: str, prices: str = "", **terms: str) -> Contract:
        """A contract from that day on, agreed now; `prices` are its own."""
        body: dict[str, Any] = {"starts_at": f"{starts}T00:00:00Z", **terms}
        if "ends_at" in terms:
            body["ends_at"] = f"{terms['ends_at']}T00:00:00Z"
        if self.currency != "USD":
            body["book"] = self.currency.lower()
        if prices:
            body["entries"] = entries(prices)
        return agree(tenant_id=self.tenant.id, body=body, by="sales")

    def closes(self, until: str) -> Invoice | None:
        """What was used until then is invoiced then, and the invoice sent to the customer."""
        with on(until) as at:
            invoice = close_period(self.tenant.id, at)
            if invoice is not None:
                self.moves(invoice, "open")
        return invoice

    def sets_threshold(self, amount: str | None) -> None:
        """From this unbilled spend on, an interim invoice is made."""
        with tenant_scope(self.tenant.id):
            set_threshold(amount, by="sales")

    def looked_at(self, when: str) -> Invoice | None:
        """Whoever makes interim invoices comes by then. What is made is a draft."""
        with on(when):
            return make_interim(self.tenant.id)

    def moves(self, invoice: Invoice, status: str) -> None:
        """News of the invoice comes now."""
        with tenant_scope(self.tenant.id):
            assert advance(invoice.id, News(status, clock.now()))

    def gets_credit(self, name: str, amount: str, kind: str, expires: str = "", **terms: Any):
        """Credit from now on."""
        grant(
            tenant_id=self.tenant.id,
            terms=GrantTerms(
                kind=kind,
                currency=self.currency,
                amount_minor=self.minor(amount),
                expires_at=instant(expires) if expires else None,
                reason=name,
                **terms,
            ),
            idempotency_key=name,
            created_by="sales",
        )

    def loses_expired_credit(self, when: str) -> int:
        """The sweep that writes off what expired runs then; how many grants that were."""
        with on(when):
            return expire_credit_of(self.tenant.id)

    def gives_back(self, key: str, invoice: Invoice, line: int = 0, amount: str = "") -> str:
        """A credit note over an amount of one line, or of all that is left, as a line of a table.

        Its number, then the subtotal, the taxes in it, the taxes on top, the total.
        """
        with tenant_scope(self.tenant.id):
            asked = None
            if line:
                row = InvoiceLine.objects.get(invoice_id=invoice.id, position=line)
                asked = [LineAsked(row.id, self.minor(amount))]
            note = create_credit_note(
                invoice.id, reason="service_failure", idempotency_key=key, lines=asked
            )
        amounts = (
            note.subtotal_minor, note.tax_inclusive_minor, note.tax_exclusive_minor,
            note.total_minor,
        )  # fmt: skip
        return " | ".join([note.number, *map(self.text, amounts)])

    # -- what paper and books say

    def paper(self, invoice: Invoice | None) -> list[str]:
        """The invoice as a table: month, what, quantity, amount; taxes; the total."""
        assert invoice is not None
        rows = []
        with tenant_scope(self.tenant.id):
            invoice = Invoice.objects.get(id=invoice.id)
            for line in InvoiceLine.objects.filter(invoice_id=invoice.id).order_by("position"):
                month = f"{line.period_start:%m}{' late' if line.is_late else ''}"
                quantity = f"{line.quantity.normalize():,f}" if line.quantity else "-"
                what = line.display_name or line.description
                if line.unit_price_pico is not None:
                    what = f"{line.meter} of {line.model}"
                if line.meter and line.contract_id is not None:
                    what += ", contract"
                rows.append(f"{month} | {what} | {quantity} | {self.text(line.amount_minor)}")
            for tax in InvoiceTax.objects.filter(invoice_id=invoice.id).order_by("position"):
                what = str(tax)
                where = "on top" if tax.mode == "exclusive" else "included"
                rows.append(f"tax | {what} | {where} | {self.text(tax.amount_minor)}")
        return [*rows, f"total | {self.text(invoice.total_minor)}"]

    def books(self) -> list[str]:
        """What each account of the ledger holds, debits above zero; first the ledger is audited."""
        assert [(each.check, each.findings) for each in audit() if each.findings] == []
        with tenant_scope(self.tenant.id):
            held = {each.account: each.balance_minor for each in balances()}
        assert sum(held.values()) == 0
        return [f"{account} | {self.text(amount)}" for account, amount in held.items() if amount]

    def credit(self) -> list[str]:
        """What is left of each grant, by name."""
        with tenant_scope(self.tenant.id):
            rows = CreditRemaining.objects.filter(remaining_minor__gt=0).select_related("grant")
            return sorted(f"{row.grant.reason} | {self.text(row.remaining_minor)}" for row in rows)

    def credit_at(self, when: str) -> str:
        """What may be drawn at that instant, of what is there now."""
        with tenant_scope(self.tenant.id):
            return self.text(queries.balance(instant(when)).total_minor)

    def replays(self) -> list[tuple[str, bool, str]]:
        """Each closed period rated again: its start, the same hash or not, what is owed still."""
        with tenant_scope(self.tenant.id):
            return [
                (f"{each.starts_at:%m-%d}", each.hash_equal, self.text(each.difference_minor))
                for each in rerate()
            ]

    def invoiced(self) -> str:
        """The sum of all invoices."""
        with tenant_scope(self.tenant.id):
            return self.text(sum(Invoice.objects.values_list("total_minor", flat=True)))

    def text(self, amount_minor: int) -> str:
        """`1234` is `12.34` of two digits."""
        return minor_to_text(int(amount_minor), self.currency)

    def minor(self, amount: str) -> int:
        """The reverse; the text has all its digits."""
        whole, _, part = amount.partition(".")
        assert len(part) == minor_digits(self.currency), amount
        return int(whole + part)
