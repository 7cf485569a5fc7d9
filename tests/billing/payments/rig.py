"""A provider that dies, lies or stumbles at a chosen call, and a plain view of the other side."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from billing.invoicing.models import Invoice
from billing.payments.models import BillingAccount, PaymentStep
from billing.payments.provider import Parameters, SendKind
from billing.payments.stripe import Stripe
from tenants.queries import organisation
from tenants.scoping import tenant_scope
from tests.conftest import OnboardedOrganisation
from tests.stripe_sandbox.rig import Sandbox


class Killed(BaseException):
    """The worker is gone: nothing of ours may catch this."""


READS = (
    *("customer", "invoice", "lines", "find_customer", "find_invoice", "checkout", "find_checkout"),
    *("card", "payment_method", "choose_card", "open_portal", "charge", "find_charge"),
    *("credit_notes", "charge_of", "refunds", "invoice_of_payment"),
    *("place_customer", "taxes", "tax_again"),
)


class Faulty:
    """A provider whose `at`-th call, or first of that name, goes wrong by `fail`, before it has had
    its effect or after."""

    def __init__(
        self, inner: Stripe | None, at: int | str, *, after: bool, fail: Callable[[], BaseException]
    ):
        self._inner = inner
        self._at, self._after, self._fail = at, after, fail
        self.calls: list[str] = []

    @property
    def has_failed(self) -> bool:
        if isinstance(self._at, str):
            return self._at in self.calls
        return len(self.calls) >= self._at

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._inner, name)
        if name != "send" and name not in READS:
            return member

        def call(*arguments: Any, **options: Any) -> Any:
            self.calls.append(str(arguments[0]) if name == "send" else name)
            named = self._at == self.calls[-1] and self._at not in self.calls[:-1]
            now = named or len(self.calls) == self._at
            if now and not self._after:
                raise self._fail()
            result = member(*arguments, **options)
            if now:
                raise self._fail()
            return result

        return call


class There:
    """The sandbox's side, through the SDK."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.client = sandbox.client()

    def invoices(self, tenant: OnboardedOrganisation) -> list[Any]:
        """Every invoice of the tenant's customers; it has one customer at most."""
        customers = self.client.v1.customers.list(
            {"limit": 100, "email": f"owner@{tenant.slug}.example"}
        ).auto_paging_iter()
        ours = [
            each.id
            for each in customers
            if each.to_dict()["metadata"].get("meterplane_tenant") == str(tenant.id)
        ]
        assert len(ours) <= 1, "one customer per tenant"
        return [
            invoice
            for customer in ours
            for invoice in self.client.v1.invoices.list(
                {"customer": customer, "limit": 100}
            ).auto_paging_iter()
        ]

    def lines(self, invoice_id: str) -> list[tuple[str, int, str]]:
        """(our line id, amount, description) of each."""
        found = self.client.v1.invoices.line_items.list(invoice_id, {"limit": 100})
        return [
            (line.to_dict()["metadata"]["meterplane_line"], line.amount, line.description or "")
            for line in found.auto_paging_iter()
        ]

    def press(self, url: str, card: str = "4242424242424242") -> str:
        """Use a card on a checkout's page; where its form leads."""
        path = url.removeprefix(self.sandbox.url)
        done = self.sandbox.request("POST", f"{path}/card", {"card": card}, key=None)
        assert done.status == 303, done.text
        return str(done.headers["Location"])

    def paid_minor(self, customer_id: str) -> int:
        """All that was charged to a customer and succeeded."""
        charges = self.client.v1.charges.list({"customer": customer_id, "limit": 100})
        return sum(each.amount for each in charges.auto_paging_iter() if each.paid)


class ADayLater(Stripe):
    """Stripe after it has forgotten every key it was sent before: any key is new to it."""

    def send(self, kind: SendKind, target_id: str, parameters: Parameters, key: str) -> str:
        return super().send(kind, target_id, parameters, f"{key}:later")


def read(tenant_id: UUID, invoice: Invoice) -> Invoice:
    """Our invoice now."""
    with tenant_scope(tenant_id):
        found: Invoice = Invoice.objects.get(id=invoice.id)
        return found


def standing(tenant_id: UUID) -> str:
    """The tenant's standing now."""
    with tenant_scope(tenant_id):
        return organisation().standing


def steps_of(tenant_id: UUID) -> list[tuple[str, int, str]]:
    """(kind, revision, state) of every step of the tenant, in order."""
    with tenant_scope(tenant_id):
        return list(
            PaymentStep.objects.order_by("created_at", "id").values_list(
                "kind", "revision", "state"
            )
        )


def customer_of(tenant_id: UUID) -> str:
    """The tenant's customer id."""
    with tenant_scope(tenant_id):
        return str(BillingAccount.objects.get().customer_id)
