"""The columns of FOCUS 1.2, in the order of its column library, and the three we add."""

import pyarrow as pa  # type: ignore[import-untyped]

from meterplane.metering.event_table import INSTANT, MONEY
from meterplane.metering.exports.focus_version import VERSION

# How a meter is described, and its unit in the specification's spelling.
METERS = {
    "input_tokens": ("Input tokens", "Tokens"),
    "output_tokens": ("Output tokens", "Tokens"),
    "requests": ("Requests", "Requests"),
}
_TEXT = pa.string()
_PICO = pa.decimal128(38, 12)  # unit prices, and products of them: exact
_QUANTITY = pa.decimal128(38, 0)

COLUMNS: dict[str, pa.DataType] = {
    "AvailabilityZone": _TEXT,
    "BilledCost": MONEY,
    "BillingAccountId": _TEXT,
    "BillingAccountName": _TEXT,
    "BillingAccountType": _TEXT,
    "BillingCurrency": _TEXT,
    "BillingPeriodEnd": INSTANT,
    "BillingPeriodStart": INSTANT,
    "CapacityReservationId": _TEXT,
    "CapacityReservationStatus": _TEXT,
    "ChargeCategory": _TEXT,
    "ChargeClass": _TEXT,
    "ChargeDescription": _TEXT,
    "ChargeFrequency": _TEXT,
    "ChargePeriodEnd": INSTANT,
    "ChargePeriodStart": INSTANT,
    "CommitmentDiscountCategory": _TEXT,
    "CommitmentDiscountId": _TEXT,
    "CommitmentDiscountName": _TEXT,
    "CommitmentDiscountQuantity": _QUANTITY,
    "CommitmentDiscountStatus": _TEXT,
    "CommitmentDiscountType": _TEXT,
    "CommitmentDiscountUnit": _TEXT,
    "ConsumedQuantity": _QUANTITY,
    "ConsumedUnit": _TEXT,
    "ContractedCost": _PICO,
    "ContractedUnitPrice": _PICO,
    "EffectiveCost": MONEY,
    "InvoiceId": _TEXT,
    "InvoiceIssuerName": _TEXT,
    "ListCost": _PICO,
    "ListUnitPrice": _PICO,
    "PricingCategory": _TEXT,
    "PricingCurrency": _TEXT,
    "PricingCurrencyContractedUnitPrice": _PICO,
    "PricingCurrencyEffectiveCost": MONEY,
    "PricingCurrencyListUnitPrice": _PICO,
    "PricingQuantity": _QUANTITY,
    "PricingUnit": _TEXT,
    "ProviderName": _TEXT,
    "PublisherName": _TEXT,
    "RegionId": _TEXT,
    "RegionName": _TEXT,
    "ResourceId": _TEXT,
    "ResourceName": _TEXT,
    "ResourceType": _TEXT,
    "ServiceCategory": _TEXT,
    "ServiceName": _TEXT,
    "ServiceSubcategory": _TEXT,
    "SkuId": _TEXT,
    "SkuMeter": _TEXT,
    "SkuPriceDetails": _TEXT,
    "SkuPriceId": _TEXT,
    "SubAccountId": _TEXT,
    "SubAccountName": _TEXT,
    "SubAccountType": _TEXT,
    "Tags": _TEXT,
    "x_Model": _TEXT,
    "x_PriceVersionId": _TEXT,
    "x_ServiceTier": _TEXT,
}


def schema(generator: str) -> pa.Schema:
    """The columns; a file's metadata says the version of the specification, as FOCUS asks."""
    said = {"FocusVersion": VERSION, "DataGenerator": generator}
    return pa.schema(list(COLUMNS.items()), metadata=said)
