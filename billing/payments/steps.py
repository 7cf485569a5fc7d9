"""One call to the provider that must happen once, across crashes.

    freeze: parameters, digest and idempotency key are committed before the first call
    perform: SENT is committed, the call is made outside any transaction, its result is committed

After a crash between the call and its result, the same key with the same bytes is sent again: the
provider answers with what it did. That holds for as long as it remembers keys (24 h); beyond that,
and after a server error it might replay for ever, we look first and send under a new key only if
what we wanted is not there.
"""

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from django.db import connection

from billing.payments.models import PaymentStep
from billing.payments.provider import (
    CardDeclined,
    Parameters,
    PaymentProvider,
    ProviderFault,
    ProviderRefused,
    ProviderUnavailable,
    SendKind,
)
from meterplane.kernel import clock
from meterplane.kernel.invariant import ensure
from tenants.scoping import tenant_scope

KEY_REMEMBERED = timedelta(hours=23)  # Stripe may forget a key after 24 h
CLOCK_SLACK = timedelta(minutes=5)  # the provider's clock against ours, when listing since

Recover = Callable[[datetime], str | None]
State = PaymentStep.State


def freeze(
    tenant_id: UUID,
    run_id: UUID | None,
    kind: str,
    parameters: Parameters,
    *,
    subject_id: UUID | None = None,
) -> PaymentStep:
    """The step that is to be performed: the newest that has not failed, or a new revision.

    Needs the tenant's door.
    """
    of = {"run_id": run_id, "subject_id": subject_id, "kind": kind}
    known: PaymentStep | None = (
        PaymentStep.objects.filter(tenant_id=tenant_id, **of).order_by("-revision").first()
    )
    if known is not None and known.state != State.FAILED:
        return known
    revision = known.revision + 1 if known is not None else 1
    text = msgspec.json.encode(parameters, order="sorted").decode()
    owner = run_id or subject_id or tenant_id
    # Whoever freezes first decides the bytes; a worker that arrives meanwhile takes what it finds.
    step: PaymentStep
    step, _ = PaymentStep.objects.get_or_create(
        idempotency_key=f"{kind}:{owner}:{revision}",
        defaults={
            "tenant_id": tenant_id,
            **of,
            "revision": revision,
            "parameters": text,
            "digest": hashlib.sha256(text.encode()).hexdigest(),
        },
    )
    return step


def perform(
    tenant_id: UUID,
    step_id: UUID,
    provider: PaymentProvider,
    *,
    target_id: str,
    recover: Recover,
) -> str:
    """Bring one step behind us; the id of what it made or moved.

    `recover(since)` reads whether it happened already. Raises what `PaymentProvider.send` raises;
    a definite refusal fails this revision.
    """
    step = _load(tenant_id, step_id)
    if step.state == State.DONE:
        return step.result_id
    ensure(step.state != State.FAILED, "a failed revision is not sent again")
    if step.first_sent_at is not None and _must_look(step):
        found = recover(step.first_sent_at - CLOCK_SLACK)
        if found is not None:
            return _done(tenant_id, step, found, "found there")
        if clock.now() - step.first_sent_at > KEY_REMEMBERED or step.state == State.UNCLEAR:
            _set(tenant_id, step, state=State.FAILED, note="not there; a new revision follows")
            with tenant_scope(tenant_id):
                successor = freeze(
                    tenant_id,
                    step.run_id,
                    step.kind,
                    msgspec.json.decode(step.parameters),
                    subject_id=step.subject_id,
                )
            return perform(tenant_id, successor.id, provider, target_id=target_id, recover=recover)
    try:
        return _send(tenant_id, step, provider, target_id)
    except CardDeclined:
        raise
    except ProviderRefused:
        # "Finalised already", "paid already": somebody was there first. What counts is the state.
        found = recover((step.first_sent_at or clock.now()) - CLOCK_SLACK)
        if found is None:
            raise
        return found


def _send(tenant_id: UUID, step: PaymentStep, provider: PaymentProvider, target_id: str) -> str:
    now = clock.now()
    if not _set(
        tenant_id,
        step,
        state=State.SENT,
        attempts=step.attempts + 1,
        first_sent_at=step.first_sent_at or now,
        last_sent_at=now,
    ):
        return _concluded_elsewhere(tenant_id, step)
    kind: SendKind = msgspec.convert(step.kind, SendKind)
    parameters = msgspec.json.decode(step.parameters)
    ensure(not connection.in_atomic_block, "the provider is called outside transactions")
    try:
        result_id = provider.send(kind, target_id, parameters, step.idempotency_key)
    except ProviderFault as fault:
        _set(tenant_id, step, state=State.UNCLEAR, note=fault.message)
        raise
    except ProviderRefused as refused:
        _set(tenant_id, step, state=State.FAILED, note=f"{refused.code}: {refused.message}")
        raise
    return _done(tenant_id, step, result_id, "")


def _must_look(step: PaymentStep) -> bool:
    age = clock.now() - (step.first_sent_at or clock.now())
    return step.state == State.UNCLEAR or age > KEY_REMEMBERED


def _load(tenant_id: UUID, step_id: UUID) -> PaymentStep:
    with tenant_scope(tenant_id):
        step: PaymentStep = PaymentStep.objects.get(id=step_id)
    return step


def _set(tenant_id: UUID, step: PaymentStep, **values: Any) -> bool:
    """False if the step was concluded meanwhile: what is concluded does not change."""
    with tenant_scope(tenant_id):
        changed = (
            PaymentStep.objects.filter(id=step.id)
            .exclude(state__in=[State.DONE, State.FAILED])
            .update(**values)
        )
    for name, value in values.items():
        setattr(step, name, value)
    return bool(changed)


def _done(tenant_id: UUID, step: PaymentStep, result_id: str, note: str) -> str:
    if not _set(
        tenant_id, step, state=State.DONE, result_id=result_id, done_at=clock.now(), note=note
    ):
        ensure(
            _concluded_elsewhere(tenant_id, step) == result_id,
            "two workers with one idempotency key get one object",
        )
    return result_id


def _concluded_elsewhere(tenant_id: UUID, step: PaymentStep) -> str:
    """What another worker got for this step. Both may send: the key makes it one."""
    now = _load(tenant_id, step.id)
    if now.state != State.DONE:
        raise ProviderUnavailable("superseded", "Another worker is at this step; come again.")
    return now.result_id
