"""What an operator does about an invoice that was sent: void it, write it off, pay money back.

Each is asked for here and done at the payment provider by the next sweep; the answer says where it
stands. An organisation is its slug. Money is a decimal text beside its currency.
"""

from typing import Any
from uuid import UUID

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.invoicing.models import Invoice
from billing.payments import refunds, withdraw
from billing.payments.models import Refund
from meterplane.api.organisations import named_organisation
from meterplane.kernel.decimals import EXACT, NotExact, text_to_decimal
from meterplane.kernel.errors import CallerError
from meterplane.kernel.money import minor_digits, minor_to_text
from tenants.queries import organisation
from tenants.scoping import tenant_scope

REFUNDS_MAX = 200
AMOUNT_CHARS_MAX = 40
AMOUNT_BELOW = 10**15


class ReasonIn(serializers.Serializer[Any]):
    """Why."""

    reason = serializers.CharField(max_length=withdraw.REASON_CHARS_MAX)


class CollectionOut(serializers.Serializer[Any]):
    """Where an invoice stands, and collecting it."""

    id = serializers.UUIDField()
    status = serializers.CharField()
    collection_state = serializers.CharField()
    collection_note = serializers.CharField(allow_blank=True)


class RefundIn(serializers.Serializer[Any]):
    """Money to go back. Without `amount`, all that is left of the payment."""

    amount = serializers.CharField(max_length=AMOUNT_CHARS_MAX, required=False)
    reason = serializers.CharField(max_length=refunds.REASON_CHARS_MAX)
    idempotency_key = serializers.CharField(max_length=refunds.KEY_CHARS_MAX)


class RefundOut(serializers.Serializer[Any]):
    """Money that goes back. `owed` of it had been promised by credit notes, `balance` had been paid
    too much, and nothing stands for `goodwill`."""

    id = serializers.UUIDField()
    invoice = serializers.UUIDField()
    origin = serializers.ChoiceField(choices=Refund.Origin.values)
    state = serializers.ChoiceField(choices=Refund.State.values)
    currency = serializers.CharField()
    amount = serializers.CharField()
    owed = serializers.CharField()
    balance = serializers.CharField()
    goodwill = serializers.CharField()
    reason = serializers.CharField(allow_blank=True)
    failure = serializers.CharField(allow_blank=True)
    created_at = serializers.DateTimeField()


class InvoiceVoid(APIView):
    """An invoice that should not have been."""

    @extend_schema(operation_id="invoice_void", request=ReasonIn, responses={202: CollectionOut})
    def post(self, request: Request, slug: str, invoice_id: UUID) -> Response:
        """Void it, here and at the provider. Nobody is charged for it from now on."""
        return _withdrawn(request, slug, invoice_id, withdraw.VOID)


class InvoiceWriteOff(APIView):
    """An invoice that nobody will pay."""

    @extend_schema(
        operation_id="invoice_write_off", request=ReasonIn, responses={202: CollectionOut}
    )
    def post(self, request: Request, slug: str, invoice_id: UUID) -> Response:
        """Write it off, here and at the provider. It can still be paid, or voided."""
        return _withdrawn(request, slug, invoice_id, withdraw.UNCOLLECTIBLE)


class InvoiceRefunds(APIView):
    """Money of an invoice that goes back."""

    @extend_schema(operation_id="invoice_refunds", responses=RefundOut(many=True))
    def get(self, request: Request, slug: str, invoice_id: UUID) -> Response:
        """The newest first, at most 200, whoever gave it back."""
        with tenant_scope(named_organisation(slug).id):
            rows = list(Refund.objects.filter(invoice_id=invoice_id)[:REFUNDS_MAX])
        return Response(RefundOut([_refund(row) for row in rows], many=True).data)

    @extend_schema(operation_id="invoice_refund", request=RefundIn, responses={201: RefundOut})
    def post(self, request: Request, slug: str, invoice_id: UUID) -> Response:
        """Give back of what was paid, to the card that paid it. The same key asks once.

        It corrects no invoice and no tax: a credit note does, and its refund is made with it.
        """
        body = RefundIn(data=request.data)
        body.is_valid(raise_exception=True)
        asked = body.validated_data
        with tenant_scope(named_organisation(slug).id):
            currency = organisation().currency
            refund = refunds.ask(
                invoice_id,
                amount_minor=_minor(asked["amount"], currency) if "amount" in asked else None,
                reason=asked["reason"],
                idempotency_key=asked["idempotency_key"],
            )
        return Response(RefundOut(_refund(refund)).data, status=201)


def _withdrawn(request: Request, slug: str, invoice_id: UUID, status: str) -> Response:
    body = ReasonIn(data=request.data)
    body.is_valid(raise_exception=True)
    with tenant_scope(named_organisation(slug).id):
        invoice: Invoice = withdraw.ask(invoice_id, status, body.validated_data["reason"])
    return Response(CollectionOut(invoice).data, status=202)


def _minor(text: str, currency: str) -> int:
    digits = minor_digits(currency)
    try:
        number = text_to_decimal(text)
        scaled = EXACT.scaleb(number, digits) if abs(number) < AMOUNT_BELOW else None
    except NotExact:
        scaled = None
    if scaled is None or scaled != scaled.to_integral_value():
        raise CallerError(
            "amount_invalid", f"An amount in {currency}, with at most {digits} decimals.",
            field="amount",
        )  # fmt: skip
    return int(scaled)


def _refund(refund: Refund) -> dict[str, Any]:
    def amount(amount_minor: int) -> str:
        return minor_to_text(amount_minor, refund.currency)

    return {
        "id": refund.id,
        "invoice": refund.invoice_id,
        "origin": refund.origin,
        "state": refund.state,
        "currency": refund.currency,
        "amount": amount(refund.amount_minor),
        "owed": amount(refund.owed_minor),
        "balance": amount(refund.balance_minor),
        "goodwill": amount(refund.goodwill_minor),
        "reason": refund.reason,
        "failure": refund.failure,
        "created_at": refund.created_at,
    }
