"""Credit paid ahead: asked for, paid at the provider, granted once.

    wanted -> paid | failed | expired | parked        (the last three may still turn out to be paid)

A top-up is written down before its checkout is opened or its charge is made. Whoever hears of it
(the customer coming back, an event, the sweep) reads what became of it at the provider.

Guarantees: one grant of purchased credit for each that was paid, of exactly what was paid, in one
transaction with the state; however often, late and in whichever order one hears of it, and wherever
this is killed. What was paid and is not what was asked for is parked with a note, and grants
nothing. Calls are made outside transactions.
"""

import logging
from uuid import UUID

from django.conf import settings

from billing.credits.grant import grant
from billing.credits.terms import NAME_MAX, GrantTerms
from billing.payments import steps
from billing.payments.accounts import ensure_account
from billing.payments.cards import never_opened, open_checkout
from billing.payments.checkout_port import CheckoutOrder
from billing.payments.models import AutoReload, BillingAccount, TopUp
from billing.payments.provider import PaymentProvider, ProviderRefused
from billing.payments.reload_charge import charge_for
from billing.payments.terms import ensure_pays_online
from billing.payments.top_up_found import Found, of_charge, of_checkout
from billing.payments.top_up_terms import top_up_minor
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.kernel.money import minor_to_text
from tenants.queries import organisation
from tenants.scoping import tenant_scope

log = logging.getLogger(__name__)
State = TopUp.State


def buy_credit(
    tenant_id: UUID, amount: str, provider: PaymentProvider, *, idempotency_key: str, by: str
) -> TopUp:
    """Ask for credit, once for its key. `checkout_url` says where it is paid.

    Raises `CallerError` `top_up_invalid`, or 409 `idempotency_key_reused`, `pays_by_hand` or
    `top_up_refused`; and `WorldError` when the provider is away: asked again with the same key, it
    goes on.
    """
    if not 1 <= len(idempotency_key) <= NAME_MAX:
        raise CallerError(
            "top_up_invalid",
            f"Name the top-up in 1 to {NAME_MAX} characters.",
            field="idempotency_key",
        )
    with tenant_scope(tenant_id):
        ensure_pays_online()
        currency = organisation().currency
        amount_minor = top_up_minor(amount, currency)
        top_up: TopUp
        top_up, _ = TopUp.objects.get_or_create(
            tenant_id=tenant_id,
            idempotency_key=idempotency_key,
            defaults={
                "amount_minor": amount_minor,
                "currency": currency,
                "created_by": by[:NAME_MAX],
            },
        )
    if (top_up.amount_minor, top_up.currency) != (amount_minor, currency):
        raise CallerError(
            "idempotency_key_reused",
            f"{idempotency_key!r} named another top-up; choose another key.",
            status=409,
            field="idempotency_key",
        )
    if top_up.state == State.WANTED and not top_up.payment_id:
        _open(tenant_id, top_up, provider)
    return top_up


def checkout_url(top_up: TopUp, provider: PaymentProvider) -> str:
    """Where a top-up that a person asked for is paid; empty once it cannot be any more."""
    if top_up.state != State.WANTED or top_up.origin != TopUp.Origin.PERSON:
        return ""
    return provider.checkout(top_up.payment_id).url


def settle_top_up(tenant_id: UUID, top_up_id: UUID, provider: PaymentProvider) -> TopUp:
    """Read again what became of a top-up, and apply it; the top-up as it is then.

    Raises `CallerError` 404 `top_up_not_found`, and `WorldError` when the provider is away.
    """
    with tenant_scope(tenant_id):
        top_up: TopUp | None = TopUp.objects.filter(id=top_up_id).first()
        account: BillingAccount | None = BillingAccount.objects.filter(
            provider=provider.name
        ).first()
    if top_up is None:
        raise CallerError("top_up_not_found", "There is no such top-up here.", status=404)
    if top_up.state == State.PAID:
        return top_up
    if account is None:
        return apply_found(tenant_id, top_up.id, Found(never_opened(top_up.created_at)))
    try:
        found = _look(tenant_id, top_up, account, provider)
    except ProviderRefused as refused:
        found = Found(
            State.FAILED, note=f"The provider refused ({refused.code}): {refused.message}"
        )
    return apply_found(tenant_id, top_up.id, found)


def apply_found(tenant_id: UUID, top_up_id: UUID, found: Found) -> TopUp:
    """Apply what was read there. Monotonic: paid is for ever, and grants once."""
    with tenant_scope(tenant_id):
        top_up: TopUp = TopUp.objects.select_for_update().get(id=top_up_id)
        if top_up.state == State.PAID:
            return top_up
        top_up.checked_at = clock.now()
        top_up.payment_id = top_up.payment_id or found.payment_id
        if found.state is not None and _moves(top_up.state, found.state):
            if found.state == State.PAID:
                top_up.grant_id = _grant(tenant_id, top_up)
            top_up.state, top_up.note = found.state, found.note
            top_up.settled_at = top_up.checked_at
            if found.state == State.FAILED and top_up.origin == TopUp.Origin.AUTO:
                # With the failure, or a worker that dies in between would charge once more.
                pause_auto_reload(found.note)
        top_up.save()
    if found.state == State.PARKED:
        log.error("top-up %s is parked: %s", top_up_id, found.note)
    return top_up


def pause_auto_reload(note: str) -> None:
    """Charge nothing by itself until the card changes or a person resumes.

    Needs the tenant's door.
    """
    AutoReload.objects.filter(paused_at__isnull=True).update(paused_at=clock.now(), pause_note=note)


def _moves(before: str, after: str) -> bool:
    """What is over stays as it ended, unless money came after all."""
    return after != before and (before == State.WANTED or after in (State.PAID, State.PARKED))


def _open(tenant_id: UUID, top_up: TopUp, provider: PaymentProvider) -> None:
    amount = f"{minor_to_text(top_up.amount_minor, top_up.currency)} {top_up.currency}"
    try:
        order = CheckoutOrder(
            subject_id=top_up.id,
            tenant_id=tenant_id,
            customer_id=ensure_account(tenant_id, provider),
            currency=top_up.currency,
            return_url=f"{settings.PUBLIC_WEB_URL}/billing/top-ups/{top_up.id}/",
            amount_minor=top_up.amount_minor,
            description=f"Credit for inference, {amount}",
        )
        checkout_id = open_checkout(tenant_id, order, provider)
    except ProviderRefused as refused:
        note = f"The provider refused ({refused.code}): {refused.message}"
        apply_found(tenant_id, top_up.id, Found(State.FAILED, note=note))
        raise CallerError("top_up_refused", note, status=409, field="amount") from refused
    with tenant_scope(tenant_id):
        TopUp.objects.filter(id=top_up.id, payment_id="").update(payment_id=checkout_id)
    top_up.payment_id = checkout_id


def _look(
    tenant_id: UUID, top_up: TopUp, account: BillingAccount, provider: PaymentProvider
) -> Found:
    if top_up.origin == TopUp.Origin.AUTO:
        charged = charge_for(tenant_id, top_up, account, provider)
        if isinstance(charged, Found):
            return charged
        return of_charge(top_up, account.customer_id, charged)
    since = top_up.created_at - steps.CLOCK_SLACK
    checkout_id = top_up.payment_id or provider.find_checkout(account.customer_id, top_up.id, since)
    if not checkout_id:
        return Found(never_opened(top_up.created_at))
    return of_checkout(top_up, account.customer_id, provider.checkout(checkout_id))


def _grant(tenant_id: UUID, top_up: TopUp) -> UUID:
    """Exactly what was paid, for its own name: once."""
    is_auto = top_up.origin == TopUp.Origin.AUTO
    return grant(
        tenant_id=tenant_id,
        terms=GrantTerms(
            kind="purchased",
            currency=top_up.currency,
            amount_minor=top_up.amount_minor,
            reason="Auto-reload" if is_auto else "Top-up",
        ),
        idempotency_key=f"top_up:{top_up.id}",
        created_by=top_up.created_by,
    )
