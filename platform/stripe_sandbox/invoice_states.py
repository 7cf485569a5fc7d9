"""An invoice's moves: finalize, void, mark uncollectible, and becoming paid.

Each move is one transaction with its events. A number is taken at finalization only, in the same
transaction (`invoice_numbers`). Paying itself is `payments`.
"""

from stripe_sandbox import balance_transactions, ids, payment_intents
from stripe_sandbox.automatic_tax import no_location
from stripe_sandbox.balance import Due, settle
from stripe_sandbox.call import Answer, Call
from stripe_sandbox.collection import schedule_collection
from stripe_sandbox.errors import StripeError, no_such, refused
from stripe_sandbox.events import emit, emit_change
from stripe_sandbox.invoice_moves import require
from stripe_sandbox.invoice_numbers import next_number
from stripe_sandbox.invoice_totals import retotal
from stripe_sandbox.invoices import save
from stripe_sandbox.params import Flag, Takes
from stripe_sandbox.render import public
from stripe_sandbox.store import Document

MAX_CHARGE_MINOR = 99_999_999  # a charge has at most eight digits

FINALIZE = Takes({"auto_advance": Flag()})
SEND = Takes()
VOID = Takes()
MARK_UNCOLLECTIBLE = Takes()

_FROZEN_AT_FINALIZATION = (
    "customer_address",
    "customer_email",
    "customer_name",
    "customer_phone",
    "customer_shipping",
    "customer_tax_exempt",
    "starting_balance",
)


def finalize(call: Call) -> Document | Answer:
    invoice = call.in_path("invoice")
    failure = finalize_draft(call, invoice, call.params.get("auto_advance"))
    if failure is not None:
        return Answer(failure.status, failure.body())
    return public(call, invoice)


def send(call: Call) -> Document | Answer:
    """Tell that the invoice was sent (nothing is mailed); a draft is finalized first."""
    invoice = call.in_path("invoice")
    if invoice["status"] not in ("draft", "open", "uncollectible"):
        raise refused(f"You cannot send an invoice that is {invoice['status']}.")
    if invoice["status"] == "draft":
        failure = finalize_draft(call, invoice, None)
        if failure is not None:
            return Answer(failure.status, failure.body())
    emit(call, "invoice.sent", public(call, invoice))
    return public(call, invoice)


def finalize_draft(call: Call, invoice: Document, auto_advance: bool | None) -> StripeError | None:
    """Number it, fix its amounts, open a payment; what is not worth collecting is paid at once.

    Returns why it stays a draft after all, where that is told and kept: tax without a location.
    """
    require(invoice, "finalize")
    before = public(call, invoice)
    customer = call.store.find("customer", invoice["customer"])
    if customer is None:
        raise no_such("customer", invoice["customer"], "customer", in_path=False)
    retotal(call, invoice)
    if invoice["automatic_tax"]["status"] == "requires_location_inputs":
        return _fail_finalization(call, invoice, before, no_location())
    due = settle(invoice["total"], customer["balance"], invoice["currency"])
    if due.amount_minor > MAX_CHARGE_MINOR:
        raise refused(
            f"Amount must be no more than {MAX_CHARGE_MINOR} {invoice['currency']}",
            code="amount_too_large",
        )
    number, next_sequence = next_number(call, invoice, customer)
    invoice.update({name: before[name] for name in _FROZEN_AT_FINALIZATION})
    invoice.update(
        amount_due=due.amount_minor,
        amount_remaining=due.amount_minor,
        automatically_finalizes_at=None,
        effective_at=call.now,
        ending_balance=due.ending_balance_minor,
        number=number,
        status="open",
        _page_token=ids.secret("test"),
    )
    if auto_advance is not None:
        invoice["auto_advance"] = auto_advance
    invoice["last_finalization_error"] = None
    invoice["status_transitions"]["finalized_at"] = call.now
    _change_customer(
        call,
        customer,
        balance=due.ending_balance_minor,
        next_invoice_sequence=next_sequence,
    )
    _record_balance(call, invoice, customer, due)
    if due.amount_minor > 0:
        payment_intents.open_payment(call, invoice)
    schedule_collection(call, invoice)
    save(call, invoice, before, "invoice.finalized")
    if due.amount_minor == 0:
        become_paid(call, invoice, "invoice.paid", "invoice.payment_succeeded")
    return None


def _fail_finalization(
    call: Call, invoice: Document, before: Document, failure: StripeError
) -> StripeError:
    """Still a draft, which says why; it does not try again by itself."""
    invoice["last_finalization_error"] = {
        "code": failure.code,
        "message": failure.message,
        "type": failure.kind,
    }
    call.store.set_timer(invoice["id"], None)
    save(call, invoice, before, "invoice.finalization_failed")
    return failure


def become_paid(call: Call, invoice: Document, *event_types: str) -> None:
    """The end of a happy life; the money side has been written already."""
    before = public(call, invoice)
    invoice.update(
        amount_paid=invoice["amount_due"], amount_remaining=0, attempted=True, status="paid"
    )
    invoice["status_transitions"]["paid_at"] = call.now
    _stop_collection(call, invoice)
    save(call, invoice, before, *event_types)
    customer = call.store.find("customer", invoice["customer"])
    if customer is not None:
        _change_customer(call, customer, delinquent=False)


def void(call: Call) -> Document:
    """Keeps the number; gives back what finalization took from the customer's balance."""
    invoice = call.in_path("invoice")
    require(invoice, "void")
    before = public(call, invoice)
    _cancel_payment(call, invoice, "void_invoice")
    customer = call.store.find("customer", invoice["customer"])
    if customer is not None:
        applied = invoice["starting_balance"] - invoice["ending_balance"]
        _change_customer(call, customer, balance=customer["balance"] + applied)
        if applied:
            about = {"currency": invoice["currency"], "invoice": invoice["id"]}
            balance_transactions.record(call, customer, applied, "unapplied_from_invoice", **about)
    invoice["status"] = "void"
    invoice["status_transitions"]["voided_at"] = call.now
    _stop_collection(call, invoice)
    return save(call, invoice, before, "invoice.voided")


def mark_uncollectible(call: Call) -> Document:
    """Given up for the books; it can still be paid."""
    invoice = call.in_path("invoice")
    require(invoice, "mark_uncollectible")
    before = public(call, invoice)
    invoice["status"] = "uncollectible"
    invoice["status_transitions"]["marked_uncollectible_at"] = call.now
    _stop_collection(call, invoice)
    customer = call.store.find("customer", invoice["customer"])
    if customer is not None:
        _change_customer(call, customer, delinquent=False)
    return save(call, invoice, before, "invoice.marked_uncollectible")


def cancel_payment_for_cash(call: Call, invoice: Document) -> None:
    """The invoice was settled elsewhere: its intent will not be used."""
    _cancel_payment(call, invoice, "automatic")


def _cancel_payment(call: Call, invoice: Document, reason: str) -> None:
    intent = payment_intents.of_invoice(call, invoice)
    if intent is not None:
        payment_intents.cancel(call, intent, reason)


def _record_balance(call: Call, invoice: Document, customer: Document, due: Due) -> None:
    """Why finalization changed the balance: applied, or too small to be collected."""
    moved = due.ending_balance_minor - invoice["starting_balance"]
    if moved:
        too_small = due.amount_minor == 0 and due.ending_balance_minor > 0
        why = "invoice_too_small" if too_small else "applied_to_invoice"
        about = {"currency": invoice["currency"], "invoice": invoice["id"]}
        balance_transactions.record(call, customer, moved, why, **about)


def _stop_collection(call: Call, invoice: Document) -> None:
    invoice["auto_advance"] = False
    schedule_collection(call, invoice)


def _change_customer(call: Call, customer: Document, **values: int | bool) -> None:
    before = public(call, customer)
    customer.update(values)
    call.store.put(customer)
    emit_change(call, "customer.updated", before, public(call, customer))
