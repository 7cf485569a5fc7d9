"""How an organisation pays, payments that an operator saw, and what is done when nobody pays."""

from typing import Any
from uuid import UUID

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.invoicing.models import Invoice
from billing.payments import by_hand, dunning_policy, terms
from billing.payments.dunning_policy import Origin, Policy
from billing.payments.models import DunningStep
from billing.payments.owed import Owed, owed
from meterplane.api import collection_shapes as shapes
from meterplane.api.credit_shapes import minor_of
from meterplane.api.organisations import named_organisation
from meterplane.kernel.errors import CallerError
from meterplane.kernel.money import minor_to_text
from tenants.scoping import system_scope, tenant_scope


class Terms(APIView):
    """The terms of an organisation's invoices."""

    @extend_schema(operation_id="collection_terms", responses=shapes.CollectionTermsOut)
    def get(self, request: Request, slug: str) -> Response:
        """What its next invoices are issued under; charged automatically unless it was said."""
        with tenant_scope(named_organisation(slug).id):
            return Response(shapes.CollectionTermsOut(terms.terms()).data)

    @extend_schema(
        operation_id="collection_terms_set",
        request=shapes.CollectionTermsIn,
        responses=shapes.CollectionTermsOut,
    )
    def put(self, request: Request, slug: str) -> Response:
        """From the next invoice on; those whose collection has begun keep theirs."""
        said = _said(shapes.CollectionTermsIn, request)
        with tenant_scope(named_organisation(slug).id):
            set_to = terms.set_terms(**said, by=str(request.user))
        return Response(shapes.CollectionTermsOut(set_to).data)


class InvoicePayments(APIView):
    """Payments of a manual invoice."""

    @extend_schema(operation_id="invoice_payments", responses=shapes.PaymentsOut)
    def get(self, request: Request, slug: str, invoice_id: UUID) -> Response:
        """What arrived, oldest first, and what is left to pay."""
        with tenant_scope(named_organisation(slug).id):
            return Response(_payments(_invoice(invoice_id)))

    @extend_schema(
        operation_id="invoice_payment_record",
        request=shapes.PaymentIn,
        responses={200: shapes.PaymentsOut, 201: shapes.PaymentsOut},
    )
    def post(self, request: Request, slug: str, invoice_id: UUID) -> Response:
        """Record one, once for its reference: 200 where it was recorded before. The invoice is paid
        when payments cover it; what is beyond is the customer's balance."""
        said = _said(shapes.PaymentIn, request)
        with tenant_scope(named_organisation(slug).id):
            invoice = _invoice(invoice_id)
            recorded = by_hand.record_payment(
                invoice_id,
                amount_minor=minor_of(said["amount"], invoice.currency),
                paid_on=said["paid_on"],
                reference=said["reference"],
                by=str(request.user),
            )
            shown = _payments(_invoice(invoice_id))
        return Response(shown, status=201 if recorded.is_new else 200)


class InvoicePaymentTakenBack(APIView):
    """A payment that was none after all."""

    @extend_schema(
        operation_id="invoice_payment_take_back",
        request=shapes.TakeBackIn,
        responses={200: shapes.PaymentsOut, 201: shapes.PaymentsOut},
    )
    def post(self, request: Request, slug: str, invoice_id: UUID, payment_id: UUID) -> Response:
        """Take back all of it, once: 200 where it was before. An invoice that is not covered any
        more is owed again."""
        said = _said(shapes.TakeBackIn, request)
        with tenant_scope(named_organisation(slug).id):
            taken = by_hand.take_back(
                invoice_id, payment_id, reason=said["reason"], by=str(request.user)
            )
            shown = _payments(_invoice(invoice_id))
        return Response(shown, status=201 if taken.is_new else 200)


class InstallationPolicy(APIView):
    """What is done about unpaid invoices of every organisation without a policy of its own."""

    @extend_schema(operation_id="dunning_policy", responses=shapes.DunningPolicyOut)
    def get(self, request: Request) -> Response:
        """The installation's, or the shipped one."""
        return Response(_policy(*dunning_policy.installation_policy()))

    @extend_schema(
        operation_id="dunning_policy_set",
        request=shapes.DunningPolicyIn,
        responses=shapes.DunningPolicyOut,
    )
    def put(self, request: Request) -> Response:
        """It holds at once, for cases that are open too."""
        said = _said(shapes.DunningPolicyIn, request)
        with system_scope("an operator sets the installation's dunning policy"):
            made = dunning_policy.set_installation_policy(said, by=str(request.user))
        return Response(_policy(made, "installation"))


class OrganisationPolicy(APIView):
    """An organisation's own policy."""

    @extend_schema(operation_id="organisation_dunning_policy", responses=shapes.DunningPolicyOut)
    def get(self, request: Request, slug: str) -> Response:
        """Its own, or what holds for everybody."""
        with tenant_scope(named_organisation(slug).id):
            return Response(_policy(*dunning_policy.policy()))

    @extend_schema(
        operation_id="organisation_dunning_policy_set",
        request=shapes.DunningPolicyIn,
        responses=shapes.DunningPolicyOut,
    )
    def put(self, request: Request, slug: str) -> Response:
        """It holds at once, for cases that are open too."""
        said = _said(shapes.DunningPolicyIn, request)
        with tenant_scope(named_organisation(slug).id):
            made = dunning_policy.set_policy(said, by=str(request.user))
        return Response(_policy(made, "organisation"))

    @extend_schema(
        operation_id="organisation_dunning_policy_unset", responses=shapes.DunningPolicyOut
    )
    def delete(self, request: Request, slug: str) -> Response:
        """Back to the installation's."""
        with tenant_scope(named_organisation(slug).id):
            return Response(_policy(*dunning_policy.use_installation_policy()))


class OrganisationDunning(APIView):
    """Where an organisation's unpaid invoices stand."""

    @extend_schema(operation_id="organisation_dunning", responses=shapes.OwedOut(many=True))
    def get(self, request: Request, slug: str) -> Response:
        """Every overdue invoice, the oldest first: what was done, and what happens next."""
        with tenant_scope(named_organisation(slug).id):
            return Response(shapes.OwedOut([_owed(each) for each in owed()], many=True).data)


def _said(shape: type[Any], request: Request) -> dict[str, Any]:
    body = shape(data=request.data)
    body.is_valid(raise_exception=True)
    return dict(body.validated_data)


def _invoice(invoice_id: UUID) -> Invoice:
    invoice: Invoice | None = Invoice.objects.filter(id=invoice_id).first()
    if invoice is None:
        raise CallerError("invoice_not_found", f"No invoice {invoice_id}.", status=404)
    return invoice


def _payments(invoice: Invoice) -> dict[str, Any]:
    payments = [
        row | {"amount": minor_to_text(row["amount_minor"], invoice.currency)}
        for row in by_hand.payments_of(invoice.id)
    ]
    left = minor_to_text(by_hand.left_minor(invoice), invoice.currency)
    said = {"status": invoice.status, "currency": invoice.currency, "left": left}
    return dict(shapes.PaymentsOut(said | {"payments": payments}).data)


def _policy(policy: Policy, origin: Origin) -> dict[str, Any]:
    return dict(shapes.DunningPolicyOut(policy.document | {"origin": origin}).data)


def _owed(each: Owed) -> dict[str, Any]:
    return {
        "invoice": each.invoice_id,
        "number": each.number,
        "currency": each.currency,
        "left": minor_to_text(each.left_minor, each.currency),
        "overdue_at": each.overdue_at,
        "why": each.why,
        "next_act": each.next_act,
        "next_at": each.next_at,
        "pay_url": each.pay_url,
        "steps": DunningStep.objects.filter(invoice_id=each.invoice_id),
    }
