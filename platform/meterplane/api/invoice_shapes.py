"""The JSON of invoices, credit notes, taxes and billing details."""

from typing import Any

from rest_framework import serializers

from billing.invoicing.models import CreditNote, Invoice, TaxedBy, TaxExemption, TaxMode

INVOICE_KINDS = Invoice.Kind.values
INVOICE_STATUSES = Invoice.Status.values


class PartyOut(serializers.Serializer[Any]):
    """Who a document is from or for."""

    name = serializers.CharField()
    address = serializers.ListField(child=serializers.CharField())
    country = serializers.CharField()
    tax_ids = serializers.ListField(child=serializers.CharField())
    email = serializers.CharField()


class InvoiceLineOut(serializers.Serializer[Any]):
    """One line: `quantity` and amounts are decimal texts. A plain price has a `unit_price`, an
    entry with tiers its `price_model` and `breakdown`."""

    uid = serializers.CharField()
    kind = serializers.CharField()
    display_name = serializers.CharField()
    model = serializers.CharField()
    service_tier = serializers.CharField()
    meter = serializers.CharField()
    description = serializers.CharField()
    quantity = serializers.CharField()
    unit_price = serializers.CharField(allow_null=True)
    amount = serializers.CharField()
    price_version = serializers.CharField(allow_null=True)
    entry = serializers.CharField(allow_null=True)
    contract = serializers.CharField(allow_null=True)
    interim = serializers.CharField(allow_null=True)
    price_model = serializers.DictField(allow_null=True)
    breakdown = serializers.DictField(allow_null=True)
    period_start = serializers.CharField()
    period_end = serializers.CharField()
    late = serializers.BooleanField()


class InvoiceTaxOut(serializers.Serializer[Any]):
    """One tax: exclusive comes on top of the lines, inclusive is in them. With a `note`, what an
    interim invoice bore of it, taken back."""

    name = serializers.CharField()
    percentage = serializers.CharField()
    mode = serializers.ChoiceField(choices=TaxMode.values)
    note = serializers.CharField(allow_blank=True)
    country = serializers.CharField()
    taxable = serializers.CharField()
    amount = serializers.CharField()


class CreditNoteNamed(serializers.Serializer[Any]):
    """A credit note of an invoice."""

    id = serializers.UUIDField()
    number = serializers.CharField()
    total = serializers.CharField()


class InvoiceDetailOut(serializers.Serializer[Any]):
    """An invoice with everything on it: `total` is `subtotal` plus `tax`; `tax_included` is in the
    lines already. An interim one is of a month that goes on; the month's own invoice has all of its
    lines, and takes each interim one back with a line of kind `interim` and its taxes."""

    id = serializers.UUIDField()
    number = serializers.CharField(allow_null=True)
    kind = serializers.ChoiceField(choices=Invoice.Kind.values)
    status = serializers.ChoiceField(choices=Invoice.Status.values)
    currency = serializers.CharField()
    subtotal = serializers.CharField()
    tax = serializers.CharField()
    tax_included = serializers.CharField()
    total = serializers.CharField()
    credited = serializers.CharField()
    due = serializers.CharField()
    tax_note = serializers.CharField()
    period_start = serializers.DateTimeField()
    period_end = serializers.DateTimeField()
    finalised_at = serializers.DateTimeField(allow_null=True)
    paid_at = serializers.DateTimeField(allow_null=True)
    hosted_url = serializers.CharField()
    content_hash = serializers.CharField()
    purchase_order = serializers.CharField()
    buyer = PartyOut()
    seller = PartyOut()
    lines = InvoiceLineOut(many=True)
    taxes = InvoiceTaxOut(many=True)
    credit_notes = CreditNoteNamed(many=True)


class LineEventOut(serializers.Serializer[Any]):
    """One request and what it adds to the line's quantity."""

    request_id = serializers.UUIDField()
    received_at = serializers.DateTimeField()
    ingested_at = serializers.DateTimeField()
    project = serializers.UUIDField(source="project_id")
    key = serializers.UUIDField(source="key_id")
    status = serializers.CharField()
    units = serializers.IntegerField()


class LineEventsOut(serializers.Serializer[Any]):
    """A page of a line's events, and what all of them add up to. `exact` is false of invoices from
    before it was kept which usage they had counted."""

    line = serializers.UUIDField()
    invoice = serializers.UUIDField()
    meter = serializers.CharField()
    quantity = serializers.IntegerField()
    events_total = serializers.IntegerField()
    units_total = serializers.IntegerField()
    agrees = serializers.BooleanField()
    exact = serializers.BooleanField()
    events = LineEventOut(many=True)
    next_cursor = serializers.UUIDField(allow_null=True)


class BilledLineOut(serializers.Serializer[Any]):
    """A line that a request is billed on, and what it adds there."""

    invoice = serializers.UUIDField(source="invoice_id")
    number = serializers.CharField(allow_blank=True)
    line = serializers.UUIDField(source="line_id")
    position = serializers.IntegerField()
    description = serializers.CharField()
    meter = serializers.CharField()
    units = serializers.IntegerField()
    late = serializers.BooleanField(source="is_late")


class BilledOnOut(serializers.Serializer[Any]):
    """The lines of a request; `closed_at` is null while no invoice was made of its usage yet."""

    closed_at = serializers.DateTimeField(allow_null=True)
    lines = BilledLineOut(many=True)


class CreditNoteLineIn(serializers.Serializer[Any]):
    """What of a line: an amount or a quantity as a decimal text; with neither, what is left."""

    line = serializers.UUIDField()
    amount = serializers.CharField(required=False, max_length=40)
    quantity = serializers.CharField(required=False, max_length=40)


class CreditNoteIn(serializers.Serializer[Any]):
    """A credit note. Without `lines`, all that is left of the invoice is given back."""

    reason = serializers.ChoiceField(choices=CreditNote.Reason.values)
    memo = serializers.CharField(max_length=400, required=False, allow_blank=True, default="")
    effect = serializers.ChoiceField(
        choices=CreditNote.Effect.values, required=False, allow_blank=True, default=""
    )
    idempotency_key = serializers.CharField(max_length=100)
    lines = CreditNoteLineIn(many=True, required=False, max_length=1000)  # type: ignore[call-arg]


class CreditedLineOut(serializers.Serializer[Any]):
    """What of an invoice line goes back."""

    line = serializers.UUIDField()
    position = serializers.IntegerField()
    description = serializers.CharField()
    quantity = serializers.CharField(allow_null=True)
    amount = serializers.CharField()


class CreditNoteOut(serializers.Serializer[Any]):
    """A credit note; amounts are positive decimal texts in `currency`."""

    id = serializers.UUIDField()
    number = serializers.CharField()
    invoice = serializers.UUIDField()
    invoice_number = serializers.CharField()
    reason = serializers.CharField()
    memo = serializers.CharField()
    effect = serializers.CharField()
    currency = serializers.CharField()
    subtotal = serializers.CharField()
    tax = serializers.CharField()
    tax_included = serializers.CharField()
    total = serializers.CharField()
    created_at = serializers.DateTimeField()
    lines = CreditedLineOut(many=True)


class TaxRateIn(serializers.Serializer[Any]):
    """A new tax rate; `percentage` is a decimal text: "19" is 19 %."""

    name = serializers.CharField(max_length=40)
    percentage = serializers.CharField(max_length=12)
    mode = serializers.ChoiceField(choices=TaxMode.values, default="exclusive")
    country = serializers.CharField(max_length=2, required=False, allow_blank=True, default="")
    label = serializers.CharField(max_length=80, required=False, allow_blank=True, default="")  # type: ignore[assignment]


class TaxRateOut(serializers.Serializer[Any]):
    """A tax rate. It never changes; a retired one is on no further invoice."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    percentage = serializers.SerializerMethodField()
    mode = serializers.CharField()
    country = serializers.CharField()
    label = serializers.CharField()  # type: ignore[assignment]
    created_at = serializers.DateTimeField()
    retired_at = serializers.DateTimeField(allow_null=True)

    def get_percentage(self, rate: Any) -> str:
        """Decimal text."""
        return f"{rate.percentage.normalize():f}"


class ExemptionShape(serializers.Serializer[Any]):
    """Why invoices carry no tax; it is printed on each."""

    kind = serializers.ChoiceField(choices=TaxExemption.Kind.values)
    reason = serializers.CharField(max_length=200)


class OrganisationTaxesIn(serializers.Serializer[Any]):
    """The rates of an organisation, all of them, or that Stripe computes its taxes, which needs a
    country in its billing details; an exemption stands above both."""

    computed_by = serializers.ChoiceField(choices=TaxedBy.values, required=False, default="rates")
    rates = serializers.ListField(child=serializers.UUIDField(), max_length=10)
    exemption = ExemptionShape(allow_null=True, required=False, default=None)


class OrganisationTaxesOut(serializers.Serializer[Any]):
    """How the next invoice is taxed."""

    computed_by = serializers.ChoiceField(choices=TaxedBy.values)
    rates = TaxRateOut(many=True)
    exemption = ExemptionShape(allow_null=True)


class InterimThresholdIn(serializers.Serializer[Any]):
    """From which unbilled spend on: a decimal text in the organisation's currency; null: never."""

    amount = serializers.CharField(max_length=40, allow_null=True)


class InterimThresholdOut(serializers.Serializer[Any]):
    """What holds now; `amount` is null where no interim invoices are made."""

    amount = serializers.CharField(allow_null=True)
    currency = serializers.CharField()
    origin = serializers.ChoiceField(choices=["organisation", "default"])


class TaxIdShape(serializers.Serializer[Any]):
    """A tax id by its kind."""

    type = serializers.CharField(max_length=20)
    value = serializers.CharField(max_length=40)


class BillingDetailsShape(serializers.Serializer[Any]):
    """Who invoices are made out to; the address has its lines apart by line breaks."""

    name = serializers.CharField(max_length=120, allow_blank=True, default="")
    address = serializers.CharField(
        max_length=700, allow_blank=True, default="", trim_whitespace=False
    )
    country = serializers.CharField(max_length=2, allow_blank=True, default="")
    tax_ids = TaxIdShape(many=True, default=list)
    purchase_order = serializers.CharField(max_length=40, allow_blank=True, default="")
