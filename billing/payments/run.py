"""The steps that bring one invoice to the provider, in order, each crash-safe (see `steps`).

    draft -> lines -> verify -> (taxes, where Stripe computes them) -> finalise -> credit notes
        -> pay | send -> mirror

Guarantees: one invoice there for one of ours, with the same lines to the cent, however often and
wherever this runs and is killed. A lease keeps two workers from the same run; it is renewed before
each step, and if two had it nevertheless, idempotency keys and unique rows still hold. What does
not agree raises `Parked` with a readable difference: nothing is guessed.

Does not create customers and does not decide when to try again: that is `collect`.
"""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings

from billing.invoicing.advance import News, advance
from billing.invoicing.models import Invoice, TaxedBy
from billing.invoicing.parties import billing_place
from billing.invoicing.provider_tax import record_told, told_minor
from billing.payments import steps
from billing.payments.credit_notes import NoteDiffers, send_note, waiting
from billing.payments.mirror import mirror
from billing.payments.models import Method, PaymentRun, PaymentStep
from billing.payments.provider import (
    CardDeclined,
    DraftOrder,
    LineOrder,
    Parameters,
    PaymentProvider,
    ProviderInvoice,
    ProviderRefused,
)
from billing.payments.refunds import mirror_refunds
from billing.payments.terms import Terms
from billing.payments.verify import Expected, differences
from meterplane.kernel import clock
from tenants.scoping import tenant_scope

log = logging.getLogger(__name__)

# Renewed before each step. A step is at most two calls, each 3 attempts x 35 s and their backoff:
# 240 s. A worker that died delays its invoice by this long.
LEASE = timedelta(minutes=5)
NO_CARD = "The customer has no payment method yet."
NO_LOCATION = (
    "Stripe cannot tell where the customer is, and so not which taxes apply: give the country in"
    " the billing details, and in the United States and Canada an address whose last line ends with"
    " state and code, such as San Francisco, CA 94105. Then resume collecting."
)
Kind = PaymentStep.Kind


class Parked(Exception):
    """Ours and theirs differ, or theirs is not what it can be. A person must look."""


class LeaseLost(Exception):
    """Another worker holds the run: this one was too slow, and stops."""


@dataclass(frozen=True, slots=True)
class Task:
    """One run held by one worker. `retry`: charge again what was charged in vain; `finish`: what
    was sent, and is not known to have come to nothing. `terms`: what is sent to the customer is
    not charged."""

    tenant_id: UUID
    invoice: Invoice
    lines: list[LineOrder]
    run: PaymentRun
    token: UUID
    provider: PaymentProvider
    retry: bool
    terms: Terms
    finish: bool = False

    @property
    def is_sent(self) -> bool:
        return self.terms.method == Method.SEND


def perform_run(task: Task) -> str:
    """Bring the invoice as far as it goes now; why it was not charged, if it was not.

    Raises `Parked`, `LeaseLost`, and what `PaymentProvider.send` raises.
    """
    _begin(task)
    if task.invoice.awaits_taxes:
        _place(task)
    their_id = _draft(task)
    theirs = task.provider.invoice(their_id)
    is_draft = theirs.status == Invoice.Status.DRAFT
    if is_draft:
        _attach(task, their_id)
    # What an earlier try finalised is compared all the same.
    _verify(task, their_id)
    if task.invoice.taxed_by == TaxedBy.STRIPE:
        _take_taxes(task, their_id)
    if is_draft:
        _finalise(task, their_id)
        theirs = task.provider.invoice(their_id)
    if theirs.credited_minor:  # a note was issued by somebody who died before its refund was read
        mirror_refunds(task.tenant_id, task.invoice.id, task.provider)
    mirror(task.tenant_id, task.invoice.id, theirs)
    if _issue_notes(task):
        theirs = task.provider.invoice(their_id)
    note = ""
    if theirs.status == Invoice.Status.OPEN and task.is_sent:
        _send(task, their_id)
    elif theirs.status == Invoice.Status.OPEN and (
        task.retry or task.finish or not theirs.is_attempted
    ):
        note = _pay(task, their_id, theirs.customer_id)
        theirs = task.provider.invoice(their_id)
    mirror(task.tenant_id, task.invoice.id, theirs)
    _record(task, theirs)
    return note


def _begin(task: Task) -> None:
    """From here on the invoice is finalising: what is asked for there is frozen, and what is there
    cannot be taken back without a trace. A run that dies is found by the sweep and continued."""
    with tenant_scope(task.tenant_id):
        advance(task.invoice.id, News(Invoice.Status.FINALISING, clock.now()))


def _draft(task: Task) -> str:
    if task.run.provider_invoice_id:
        return task.run.provider_invoice_id
    invoice, run, provider = task.invoice, task.run, task.provider
    order = DraftOrder(
        invoice_id=invoice.id,
        tenant_id=task.tenant_id,
        customer_id=run.customer_id,
        currency=invoice.currency,
        digest=run.digest,
        description=f"Usage from {invoice.period_start:%Y-%m-%d} to {invoice.period_end:%Y-%m-%d}",
        lines_url=f"{settings.PUBLIC_WEB_URL}/billing/{invoice.id}/?format=csv",
        is_taxed=invoice.taxed_by == TaxedBy.STRIPE,
        days_until_due=task.terms.days_until_due if task.is_sent else None,
    )
    step = _freeze(task, Kind.DRAFT, provider.draft_parameters(order))
    their_id = steps.perform(
        task.tenant_id,
        step.id,
        provider,
        target_id="",
        recover=lambda since: provider.find_invoice(run.customer_id, invoice.id, since),
    )
    with tenant_scope(task.tenant_id):
        PaymentRun.objects.filter(id=run.id).update(provider_invoice_id=their_id)
    return their_id


def _attach(task: Task, their_id: str) -> None:
    provider = task.provider
    taxed_in = task.invoice.currency if task.invoice.taxed_by == TaxedBy.STRIPE else ""
    step = _freeze(task, Kind.LINES, provider.lines_parameters(task.lines, taxed_in))
    # One call: all of ours are there or none. If some were, verification would park.
    steps.perform(
        task.tenant_id,
        step.id,
        provider,
        target_id=their_id,
        recover=lambda _: their_id if provider.lines(their_id) else None,
    )


def _verify(task: Task, their_id: str) -> None:
    invoice, run = task.invoice, task.run
    with tenant_scope(task.tenant_id):
        on_top_minor = None if invoice.awaits_taxes else told_minor(invoice.id)
    total_minor = sum(line.amount_minor for line in task.lines) + (on_top_minor or 0)
    expected = Expected(
        run.customer_id, invoice.currency, total_minor, run.digest, task.lines, on_top_minor
    )
    found = differences(expected, task.provider.invoice(their_id), task.provider.lines(their_id))
    step = _freeze(task, Kind.VERIFY, {"digest": run.digest})
    if step.state != PaymentStep.State.DONE:
        _read(
            task,
            step,
            PaymentStep.State.FAILED if found else PaymentStep.State.DONE,
            "\n".join(found) or "every line agrees",
        )
    if found:
        raise Parked("Ours and theirs differ:\n" + "\n".join(found))


def _place(task: Task) -> None:
    """Before the draft, which says at once whether the place is enough."""
    with tenant_scope(task.tenant_id):
        place = billing_place()
    task.provider.place_customer(task.run.customer_id, place)


def _take_taxes(task: Task, their_id: str) -> None:
    """Record what the provider puts on top before it is final there, and what differs from then.

    A draft that was made before the place was known is taxed again.
    """
    provider = task.provider
    told = provider.taxes(their_id)
    if not told.is_complete:
        provider.tax_again(their_id)
        told = provider.taxes(their_id)
    if not told.is_complete:
        raise Parked(NO_LOCATION)
    if told.included_minor:
        raise Parked("Theirs has taxes inside its lines, where they belong on top.")
    with tenant_scope(task.tenant_id):
        found = record_told(task.invoice.id, told.taxes)
    if found:
        raise Parked("The taxes there are not those that were recorded:\n" + "\n".join(found))


def _finalise(task: Task, their_id: str) -> None:
    provider = task.provider
    step = _freeze(task, Kind.FINALISE, provider.finalise_parameters())

    def finalised(_since: datetime) -> str | None:
        return their_id if provider.invoice(their_id).status != Invoice.Status.DRAFT else None

    steps.perform(task.tenant_id, step.id, provider, target_id=their_id, recover=finalised)


def _issue_notes(task: Task) -> bool:
    """Nobody is charged for what was given back; True if there were notes to issue."""
    with tenant_scope(task.tenant_id):
        notes = waiting(task.invoice.id)
        run = PaymentRun.objects.get(id=task.run.id)
    try:
        for note in notes:
            send_note(task.tenant_id, note, run, task.provider)
    except NoteDiffers as difference:
        raise Parked(str(difference)) from difference
    return bool(notes)


def _send(task: Task, their_id: str) -> None:
    """The provider mails it once. It cannot be read back whether it did: a doubt sends again."""
    step = _freeze(task, Kind.SEND, {})
    steps.perform(
        task.tenant_id, step.id, task.provider, target_id=their_id, recover=lambda _: None
    )


def _pay(task: Task, their_id: str, customer_id: str) -> str:
    """Charge; the reason in words when the customer has to act."""
    provider = task.provider
    if not provider.customer(customer_id).default_payment_method:
        return NO_CARD
    step = _freeze(task, Kind.PAY, provider.pay_parameters())
    if task.retry and step.state in (PaymentStep.State.SENT, PaymentStep.State.UNCLEAR):
        # The invoice is open, so that charge came to nothing; its key would replay the refusal.
        _read(task, step, PaymentStep.State.FAILED, "the invoice stayed open")
        step = _freeze(task, Kind.PAY, provider.pay_parameters())

    def paid(_since: datetime) -> str | None:
        return their_id if provider.invoice(their_id).status == Invoice.Status.PAID else None

    try:
        steps.perform(task.tenant_id, step.id, provider, target_id=their_id, recover=paid)
    except CardDeclined as declined:
        log.info("invoice %s was declined: %s", their_id, declined.code)
        return f"The charge was declined ({declined.code}): {declined.message}"
    except ProviderRefused as refused:
        log.warning("invoice %s was not charged: %s", their_id, refused.code)
        return f"The charge was refused ({refused.code}): {refused.message}"
    return ""


def _record(task: Task, theirs: ProviderInvoice) -> None:
    """Facts beside the total: what was due may differ by a balance the provider carries."""
    if theirs.status == Invoice.Status.OPEN:
        return  # not the end yet
    facts = {
        "status": theirs.status,
        "number": theirs.number,
        "total_minor": str(theirs.total_minor),
        "amount_due_minor": str(theirs.amount_due_minor),
        "starting_balance_minor": str(theirs.starting_balance_minor),
        "ending_balance_minor": str(theirs.ending_balance_minor),
    }
    step = _freeze(task, Kind.MIRROR, facts)
    if step.state != PaymentStep.State.DONE:
        _read(task, step, PaymentStep.State.DONE, theirs.status)


def _freeze(task: Task, kind: str, parameters: Parameters) -> PaymentStep:
    """The step to perform, with the lease renewed so that nobody else performs it."""
    with tenant_scope(task.tenant_id):
        held = PaymentRun.objects.filter(id=task.run.id, lease_token=task.token).update(
            lease_until=clock.now() + LEASE
        )
        if not held:
            raise LeaseLost
        return steps.freeze(task.tenant_id, task.run.id, kind, parameters)


def _read(task: Task, step: PaymentStep, state: str, note: str) -> None:
    """Record what a reading step found."""
    with tenant_scope(task.tenant_id):
        PaymentStep.objects.filter(id=step.id).update(state=state, note=note, done_at=clock.now())
