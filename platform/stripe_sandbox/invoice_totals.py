"""What a draft comes to: taxes of every line, subtotal, total, whenever anything changed.

A line's own rates or given tax amounts count; else the invoice's default rates; else automatic
tax, which refuses both and negative lines. `total == subtotal + exclusive taxes`, always.
"""

from stripe_sandbox import automatic_tax, taxes
from stripe_sandbox.call import Call
from stripe_sandbox.errors import no_such, refused
from stripe_sandbox.render import public
from stripe_sandbox.store import Document

MAX_LINES = 250
MAX_RATES = 20


def retotal(call: Call, invoice: Document) -> None:
    """Recompute a draft; the caller writes the invoice, lines are written here."""
    where = [("invoice = ?", invoice["id"])]
    lines = call.store.select("line_item", where, ascending=True, limit=MAX_LINES + 1)
    if len(lines) > MAX_LINES:
        raise refused(f"An invoice can have up to {MAX_LINES} line items.", param="lines")
    customer = call.store.find("customer", invoice["customer"]) or {}
    automatic = _automatic_rates(call, invoice, customer, lines)
    for line in lines:
        found = _taxes_of(call, invoice, line, customer.get("tax_exempt"), automatic)
        if found != line["taxes"]:
            line["taxes"] = found
            call.store.put(line)
    _sum(invoice, lines)


def _sum(invoice: Document, lines: list[Document]) -> None:
    every = [tax for line in lines for tax in line["taxes"]]
    subtotal = sum(line["amount"] for line in lines)
    on_top = taxes.amount_of(every, "exclusive")
    inside = taxes.amount_of(every, "inclusive")
    total = subtotal + on_top
    invoice.update(
        subtotal=subtotal,
        subtotal_excluding_tax=subtotal - inside,
        total=total,
        total_excluding_tax=subtotal - inside,
        total_taxes=taxes.summed(every),
        amount_due=max(total, 0),
        amount_remaining=max(total, 0),
    )


def rates_named(call: Call, rate_ids: list[str] | None, name: str) -> list[Document]:
    """Outer forms of the active tax rates a parameter names."""
    found = []
    for place, rate_id in enumerate(rate_ids or ()):
        rate = call.store.find("tax_rate", rate_id)
        if rate is None:
            raise no_such("tax_rate", rate_id, f"{name}[{place}]", in_path=False)
        if not rate["active"]:
            raise refused(f"The tax rate {rate_id} is archived.", param=f"{name}[{place}]")
        found.append(public(call, rate))
    return found


def _taxes_of(
    call: Call,
    invoice: Document,
    line: Document,
    exempt: str | None,
    automatic: list[Document] | None,
) -> list[Document]:
    if line.get("_tax_amounts") is not None:
        return list(line["_tax_amounts"])
    if automatic is not None:
        return taxes.of_amount(line["amount"], automatic, exempt, "standard_rated")
    shown = line.get("_tax_rates") or invoice["default_tax_rates"]
    rates = [call.store.find("tax_rate", rate["id"]) or rate for rate in shown]
    return taxes.of_amount(line["amount"], rates, exempt, "not_available")


def _automatic_rates(
    call: Call, invoice: Document, customer: Document, lines: list[Document]
) -> list[Document] | None:
    """Rates of automatic tax; None when it is off. Sets its status on the invoice."""
    setting = invoice["automatic_tax"]
    if not setting["enabled"]:
        setting.update(liability=None, provider=None, status=None)
        return None
    by_hand = invoice["default_tax_rates"] or any(
        line.get("_tax_rates") or line.get("_tax_amounts") for line in lines
    )
    if by_hand:
        raise refused(
            "You cannot combine `automatic_tax[enabled]=true` with manual tax rates or amounts.",
            param="automatic_tax[enabled]",
        )
    if any(line["amount"] < 0 for line in lines):
        raise refused(
            "Automatic tax cannot be computed for invoices with negative line items.",
            param="automatic_tax[enabled]",
        )
    usable = bool(customer) and automatic_tax.has_location(customer)
    setting.update(
        liability={"type": "self"},
        provider="stripe",
        status="complete" if usable else "requires_location_inputs",
    )
    rate = automatic_tax.rate_for(call, customer) if usable else None
    return [] if rate is None else [rate]
