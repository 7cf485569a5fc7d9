"""What a customer is told of an unpaid invoice, in plain text, and to whom.

Says what is owed, why, what happens next and when, and where to pay. Owners and billing members are
told. Needs the tenant's door, but for `send`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from django.conf import settings
from django.core.mail import EmailMessage

from billing.invoicing.models import Invoice
from billing.payments.by_hand import left_minor
from billing.payments.dunning_policy import Kind, Step
from billing.payments.models import DunningStep, Method
from billing.payments.terms import due_at, terms_of
from meterplane.kernel import amounts
from tenants.models import Member, Organisation
from tenants.queries import organisation

TOLD = (Member.Role.OWNER, Member.Role.BILLING)
RECIPIENTS_MAX = 20
AHEAD = {
    Kind.CHARGE.value: "we charge it again",
    Kind.SUSPEND.value: "the service is suspended until it is paid",
    Kind.MAIL.value: "we write again",
    Kind.END.value: "it is given up as uncollectible",
}


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail as it is stored, and sent."""

    recipients: list[str]
    subject: str
    body: str


def written(invoice: Invoice, ahead: Sequence[Step]) -> Mail:
    """The mail about an invoice as it stands now."""
    owed = amounts.minor(left_minor(invoice), invoice.currency)
    own = organisation()
    suspended = own.standing == Organisation.Standing.SUSPENDED
    happens = next_act(ahead)
    paragraphs = [
        f"Invoice {invoice.number} of {settings.SELLER['name']} for {own.name} is not paid:"
        f" {owed} is due.",
        why(invoice),
        "The service is suspended. It is back at once when this is paid." if suspended else "",
        f"What happens next: on {happens.due_at:%Y-%m-%d}, {AHEAD[happens.kind]}."
        if happens
        else "",
        how_to_pay(invoice),
    ]
    return Mail(
        recipients=_recipients(),
        subject=f"Invoice {invoice.number}: {owed} is overdue",
        body="\n\n".join(text for text in paragraphs if text) + "\n",
    )


def next_act(ahead: Sequence[Step]) -> Step | None:
    """What a customer wants to know of: another mail only where nothing else comes."""
    acts = [step for step in ahead if step.kind != Kind.MAIL]
    return next(iter(acts or ahead), None)


def why(invoice: Invoice) -> str:
    """Why it is overdue, in a sentence."""
    if invoice.payment_attempts:
        return invoice.collection_note or "It could not be charged."
    day = due_at(invoice)
    return f"It was due on {day.day} {day:%b %Y}." if day else ""


def how_to_pay(invoice: Invoice) -> str:
    """Where, or to which account."""
    if terms_of(invoice.id).method == Method.MANUAL:
        to = settings.SELLER_BANK_DETAILS or "the account that we gave you"
        return f"Please transfer it, naming {invoice.number}, to:\n{to}"
    return f"Pay here: {pay_url(invoice)}"


def pay_url(invoice: Invoice) -> str:
    """The provider's page of it, or ours."""
    return invoice.hosted_url or f"{settings.PUBLIC_WEB_URL}/billing/{invoice.id}/"


def send(step: DunningStep) -> None:
    """Hand it to the mail server. Sent again after a crash, it has the same id there."""
    sender = settings.SELLER["email"] or settings.DEFAULT_FROM_EMAIL
    EmailMessage(
        subject=step.subject,
        body=step.body,
        from_email=sender,
        to=step.recipients,
        headers={"Message-ID": f"<dunning-{step.id}@{sender.rpartition('@')[2]}>"},
    ).send()


def _recipients() -> list[str]:
    members = Member.objects.filter(role__in=TOLD).select_related("user").order_by("created_at")
    addresses = [str(member.user.email) for member in members if member.user.email]
    return list(dict.fromkeys(addresses))[:RECIPIENTS_MAX]
