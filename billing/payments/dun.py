"""Take the steps of a policy on invoices that are not paid, when their day has come.

    claim     invoice locked, still unpaid: the next step is written down, with what a mail says
    act       charge, mail or give up, outside any transaction (a suspension is a part of the claim)
    conclude  what came of it is written to the step

Guarantees: a step is taken once, whatever runs at once: its row is the marker. A payment that
commits before a claim leaves nothing to do; one that comes after a suspension lifts it (`judge`).
A worker that dies leaves its step to the next after `LEASE`, who looks whether the charge happened
before charging again; a mail may then arrive twice, with one id. A provider or a mail server that
is away delays the step and those after it. Of charges and mails that were missed, as while nothing
ran, only the last is taken: nobody gets four mails in an hour. Nobody is suspended within `NOTICE`
of the first mail that they were sent, however late that was.
"""

import logging
import smtplib
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID

from django.db import connection
from django.db.models import Q

from billing.invoicing.models import Invoice
from billing.payments import withdraw
from billing.payments.by_hand import settle
from billing.payments.collect import collect
from billing.payments.dunning_mail import send, written
from billing.payments.dunning_policy import Kind, Step, policy, schedule
from billing.payments.judge import judge, open_case, suspend
from billing.payments.models import DunningCase, DunningStep, Method, PaymentRun, PaymentStep
from billing.payments.provider import NoProvider, PaymentProvider
from billing.payments.terms import terms_of
from billing.payments.terms_models import DAYS_UNTIL_DUE_DEFAULT
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError, WorldError
from tenants.scoping import system_scope, tenant_scope

log = logging.getLogger(__name__)

CASES_MAX = 500  # of one sweep; whoever was looked at longest ago comes first
LEASE = timedelta(minutes=10)  # a charge is at most nine calls of 35 s; see `run.LEASE`
NOTICE = timedelta(days=1)
NOBODY_PAYS = "it was not paid, and the policy gives it up"
Provider = Callable[[], PaymentProvider]
State = DunningStep.State

# Of an invoice that is charged, a failed charge opens the case; without a card there is none, and
# it is overdue on its day like the others.
_OVERDUE = """
SELECT i.tenant_id, i.id
  FROM invoice i
  LEFT JOIN invoice_terms t ON t.invoice_id = i.id
  LEFT JOIN dunning_case c ON c.invoice_id = i.id
 WHERE i.status = 'open' AND i.collection_state = 'awaiting_payment' AND c.id IS NULL
   AND GREATEST(i.finalised_at, t.created_at)
       + make_interval(days => COALESCE(t.days_until_due, %s)) <= %s
 ORDER BY i.finalised_at
 LIMIT %s
"""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A step that is this worker's to take."""

    id: UUID
    kind: str
    is_taken_over: bool


def dun(provider: Provider) -> int:
    """Work on every open case, `CASES_MAX` of them. Returns how many steps were taken.

    One that fails does not keep the others waiting.
    """
    for tenant_id, invoice_id in _newly_overdue():
        _guarded(_begin, tenant_id, invoice_id)
    with system_scope("whose invoices are not paid"):
        cases = list(
            DunningCase.objects.filter(closed_at__isnull=True)
            .order_by("looked_at")
            .values_list("tenant_id", "invoice_id")[:CASES_MAX]
        )
    return sum(_guarded(work_on, *case, provider) for case in cases)


def work_on(tenant_id: UUID, invoice_id: UUID, provider: Provider) -> int:
    """Take every step of a case that is due; how many."""
    settle(tenant_id, invoice_id)
    taken = 0
    while (claimed := _claim(tenant_id, invoice_id)) is not None:
        if claimed.kind != Kind.SUSPEND:
            try:
                note = _act(tenant_id, invoice_id, claimed, provider)
            except (WorldError, smtplib.SMTPException, OSError) as away:
                _release(tenant_id, claimed.id, str(away))
                break
            _conclude(tenant_id, claimed.id, note)
        taken += 1
    return taken


def steps_ahead(invoice: Invoice) -> list[Step]:
    """What the policy has in store for an invoice with a case. Needs the tenant's door."""
    taken = {step.step: step for step in DunningStep.objects.filter(invoice_id=invoice.id)}
    charges = terms_of(invoice.id).method == Method.CHARGE
    plan = schedule(policy()[0], invoice.dunning_case.overdue_at, charges=charges)
    told_at = [row.done_at for row in taken.values() if row.kind == Kind.MAIL and row.done_at]
    not_before = min(told_at, default=clock.now()) + NOTICE
    ahead = [
        replace(step, due_at=max(step.due_at, not_before)) if step.kind == Kind.SUSPEND else step
        for step in plan
        if step.name not in taken and not _is_overtaken(step, plan, taken)
    ]
    return sorted(ahead, key=lambda step: step.due_at)


def _is_overtaken(step: Step, plan: list[Step], taken: Collection[str]) -> bool:
    """Whether a later one of its kind is due by now, or was taken."""
    return step.kind in (Kind.CHARGE, Kind.MAIL) and any(
        other.name in taken or other.due_at <= clock.now()
        for other in plan
        if other.kind == step.kind and other.due_at > step.due_at
    )


def _newly_overdue() -> list[tuple[UUID, UUID]]:
    with system_scope("which invoices are past their day"), connection.cursor() as cursor:
        cursor.execute(_OVERDUE, [DAYS_UNTIL_DUE_DEFAULT, clock.now(), CASES_MAX])
        return list(cursor.fetchall())


def _begin(tenant_id: UUID, invoice_id: UUID) -> int:
    with tenant_scope(tenant_id):
        invoice = Invoice.objects.select_for_update().get(id=invoice_id)
        if invoice.status == Invoice.Status.OPEN:
            open_case(invoice)
            judge(tenant_id)
    return 0


def _claim(tenant_id: UUID, invoice_id: UUID) -> Claimed | None:
    """The next step of an invoice, if it is due, unpaid, and nobody else is at it."""
    now = clock.now()
    with tenant_scope(tenant_id):
        invoice = Invoice.objects.select_for_update().get(id=invoice_id)
        DunningCase.objects.filter(invoice_id=invoice_id).update(looked_at=now)
        begun = DunningStep.objects.filter(invoice_id=invoice_id, state=State.BEGUN).first()
        if invoice.status != Invoice.Status.OPEN:
            _leave(begun, f"the invoice is {invoice.status}")
            return None
        if invoice.collection_state == Invoice.Collection.PARKED:
            return None
        if begun is not None:
            return _take_over(begun)
        ahead = steps_ahead(invoice)
        if not ahead or ahead[0].due_at > now or _is_being_collected(invoice_id):
            return None
        return _write_down(invoice, ahead)


def _take_over(begun: DunningStep) -> Claimed | None:
    if begun.lease_until > clock.now():
        return None
    DunningStep.objects.filter(id=begun.id).update(
        lease_until=clock.now() + LEASE, tries=begun.tries + 1
    )
    return Claimed(begun.id, begun.kind, is_taken_over=True)


def _leave(begun: DunningStep | None, why: str) -> None:
    """Whoever began it died, and there is nothing to do any more."""
    if begun is not None and begun.lease_until <= clock.now():
        DunningStep.objects.filter(id=begun.id).update(
            state=State.DONE, done_at=clock.now(), note=why
        )


def _is_being_collected(invoice_id: UUID) -> bool:
    held = Q(invoice_id=invoice_id, lease_until__gt=clock.now())
    return bool(PaymentRun.objects.filter(held).exists())


def _write_down(invoice: Invoice, ahead: list[Step]) -> Claimed:
    step, now = ahead[0], clock.now()
    row = DunningStep(
        tenant_id=invoice.tenant_id,
        invoice_id=invoice.id,
        step=step.name,
        kind=step.kind,
        due_at=step.due_at,
        lease_until=now + LEASE,
    )
    if step.kind == Kind.MAIL:
        mail = written(invoice, ahead[1:])
        row.recipients, row.subject, row.body = mail.recipients, mail.subject, mail.body
    if step.kind == Kind.SUSPEND:
        row.note = suspend(invoice.tenant_id, invoice)
        row.state, row.done_at = State.DONE, now
    row.save(force_insert=True)
    return Claimed(row.id, step.kind, is_taken_over=False)


def _act(tenant_id: UUID, invoice_id: UUID, claimed: Claimed, provider: Provider) -> str:
    """What came of it, in words. Raises `WorldError` and what a mail server does."""
    try:
        if claimed.kind == Kind.CHARGE:
            return _charge(tenant_id, invoice_id, claimed, provider())
        if claimed.kind == Kind.END:
            return _give_up(tenant_id, invoice_id, provider)
    except NoProvider as none:
        return none.message
    with tenant_scope(tenant_id):
        step = DunningStep.objects.get(id=claimed.id)
    if not step.recipients:
        return "nobody to tell"
    send(step)
    return f"told {', '.join(step.recipients)}"


def _charge(tenant_id: UUID, invoice_id: UUID, claimed: Claimed, provider: PaymentProvider) -> str:
    with tenant_scope(tenant_id):
        begun_at = DunningStep.objects.get(id=claimed.id).begun_at
        sent = PaymentStep.objects.filter(
            run__invoice_id=invoice_id, kind=PaymentStep.Kind.PAY, first_sent_at__gte=begun_at
        ).last()
    if not claimed.is_taken_over or sent is None:
        outcome = collect(tenant_id, invoice_id, provider, retry=True)
    else:  # the one before came that far
        is_unknown = sent.state in (PaymentStep.State.SENT, PaymentStep.State.UNCLEAR)
        outcome = collect(tenant_id, invoice_id, provider, finish=is_unknown)
    return outcome.note or outcome.status


def _give_up(tenant_id: UUID, invoice_id: UUID, provider: Provider) -> str:
    """As an operator does. Of one of which a part was paid, a person has to decide."""
    try:
        with tenant_scope(tenant_id):
            asked = withdraw.ask(invoice_id, withdraw.UNCOLLECTIBLE, NOBODY_PAYS)
    except CallerError as refused:
        return f"kept open: {refused.message}"
    if asked.status != Invoice.Status.OPEN:
        return str(asked.status)
    return collect(tenant_id, invoice_id, provider).status


def _release(tenant_id: UUID, step_id: UUID, why: str) -> None:
    log.warning("dunning step %s waits: %s", step_id, why)
    with tenant_scope(tenant_id):
        DunningStep.objects.filter(id=step_id, state=State.BEGUN).update(
            lease_until=clock.now(), note=why
        )


def _conclude(tenant_id: UUID, step_id: UUID, note: str) -> None:
    with tenant_scope(tenant_id):
        DunningStep.objects.filter(id=step_id, state=State.BEGUN).update(
            state=State.DONE, done_at=clock.now(), note=note
        )


def _guarded(act: Callable[..., int], *arguments: object) -> int:
    try:
        return act(*arguments)
    except Exception:
        log.exception("%s could not be worked on; the next sweep tries again", arguments[:2])
        return 0
