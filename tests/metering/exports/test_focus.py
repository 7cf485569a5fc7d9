"""FOCUS rows: the columns of the specification, exact products, and sums to the nano."""

import random
from collections import defaultdict
from datetime import UTC
from decimal import Decimal

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from billing.pricing.book import ModelPrices
from billing.pricing.publish import create_draft, publish
from meterplane.contracts.usage import cost_nano
from meterplane.kernel.ids import minted_on
from meterplane.kernel.money import split_by_largest_remainder
from meterplane.metering.exports.focus_columns import COLUMNS
from tests.metering.exports.written import asked, content_of, rows_of, take_in, worked
from tests.metering.segments import random_settles, settle

pytestmark = pytest.mark.django_db(transaction=True)

# The column library of version 1.2, copied from the specification: name, level, may be null.
SPECIFIED = """
AvailabilityZone Recommended null,BilledCost Mandatory,BillingAccountId Mandatory,
BillingAccountName Mandatory null,BillingAccountType Conditional,BillingCurrency Mandatory,
BillingPeriodEnd Mandatory,BillingPeriodStart Mandatory,CapacityReservationId Conditional null,
CapacityReservationStatus Conditional null,ChargeCategory Mandatory,ChargeClass Mandatory null,
ChargeDescription Mandatory null,ChargeFrequency Recommended,ChargePeriodEnd Mandatory,
ChargePeriodStart Mandatory,CommitmentDiscountCategory Conditional null,
CommitmentDiscountId Conditional null,CommitmentDiscountName Conditional null,
CommitmentDiscountQuantity Conditional null,CommitmentDiscountStatus Conditional null,
CommitmentDiscountType Conditional null,CommitmentDiscountUnit Conditional null,
ConsumedQuantity Conditional null,ConsumedUnit Conditional null,ContractedCost Mandatory,
ContractedUnitPrice Conditional null,EffectiveCost Mandatory,InvoiceId Recommended null,
InvoiceIssuerName Mandatory,ListCost Mandatory,ListUnitPrice Conditional null,
PricingCategory Conditional null,PricingCurrency Conditional null,
PricingCurrencyContractedUnitPrice Conditional null,
PricingCurrencyEffectiveCost Conditional null,PricingCurrencyListUnitPrice Conditional null,
PricingQuantity Mandatory null,PricingUnit Mandatory null,ProviderName Mandatory,
PublisherName Mandatory,RegionId Conditional null,RegionName Conditional null,
ResourceId Conditional null,ResourceName Conditional null,ResourceType Conditional null,
ServiceCategory Mandatory,ServiceName Mandatory,ServiceSubcategory Recommended,
SkuId Conditional null,SkuMeter Conditional null,SkuPriceDetails Conditional null,
SkuPriceId Conditional null,SubAccountId Conditional null,SubAccountName Conditional null,
SubAccountType Conditional null,Tags Conditional null
"""
COLUMN_LIST = [each.split() for each in SPECIFIED.replace("\n", "").split(",")]
PRICES = {
    "tiny-lm": ModelPrices(150_001, 600_007, 1_000_000, 75_001, 300_003, 500_000),
    "identity": ModelPrices(0, 0, 2_500_333, 0, 0, 1_250_167),
    "all-minilm-l6-v2": ModelPrices(20_999, 0, 0, 10_499, 0, 0),
}


@pytest.fixture
def frames(organisation):
    """Random usage at published prices, each event's cost rounded once as the gateway does."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    version_id = publish(create_draft(book="standard", currency="USD", prices=PRICES).id).version_id
    made = random_settles(organisation, chance, 250)
    made += [settle(organisation, tags={"team": chance.choice("abc")}) for _ in range(50)]
    priced = [_priced(frame, version_id) for frame in made]
    take_in(priced)
    return priced


def _priced(frame, version_id):
    price = PRICES[frame.model]
    cost = cost_nano(
        frame.tokens_in,
        frame.tokens_out,
        frame.requests,
        input_token_pico=price.of("input_tokens", frame.service_tier),
        output_token_pico=price.of("output_tokens", frame.service_tier),
        request_pico=price.of("requests", frame.service_tier),
    )
    return msgspec.structs.replace(
        frame, price_version_id=version_id, cost_nano=cost, reserved_nano=cost
    )


@pytest.fixture
def rows(organisation, frames):
    return rows_of(worked(asked(organisation.id, "focus", "parquet", bucket="hour")))


def test_all_columns_of_the_specification_are_there_and_null_only_where_it_allows(rows):
    assert len(COLUMN_LIST) == 57
    ours = [name for name in COLUMNS if not name.startswith("x_")]
    assert ours == [name for name, *_ in COLUMN_LIST]
    assert rows
    assert all(list(row) == list(COLUMNS) for row in rows)
    for name, _, *null in COLUMN_LIST:
        if not null:
            assert all(row[name] is not None for row in rows), name
    # What must not be null of a charge for usage, though it may of others.
    for name in (
        "ListUnitPrice", "ContractedUnitPrice", "PricingQuantity", "PricingUnit",
        "ConsumedQuantity", "ConsumedUnit", "SkuId", "SkuPriceId", "ResourceType",
    ):  # fmt: skip
        assert all(row[name] is not None for row in rows), name
    assert {row["ChargeCategory"] for row in rows} == {"Usage"}


def test_rows_are_told_apart_by_the_region_that_served_and_null_where_that_is_not_said(
    frames, rows
):
    consumed: defaultdict[str | None, Decimal] = defaultdict(Decimal)
    for row in rows:
        assert row["RegionId"] == row["RegionName"]
        if row["SkuMeter"] == "Requests":
            consumed[row["RegionId"]] += row["ConsumedQuantity"]
    expected: defaultdict[str | None, int] = defaultdict(int)
    for frame in frames:
        expected[frame.region or None] += frame.requests
    assert consumed == expected


def test_a_product_is_quantity_times_price_exactly(rows):
    for row in rows:
        assert row["ListCost"] == row["ListUnitPrice"] * row["PricingQuantity"]
        assert row["ContractedCost"] == row["ContractedUnitPrice"] * row["PricingQuantity"]
        price = PRICES[row["x_Model"]]
        meter = row["SkuId"].partition("/")[2]
        assert row["ListUnitPrice"] * 10**12 == price.of(meter, row["x_ServiceTier"])


def test_what_is_billed_adds_up_to_what_events_cost_to_the_nano(organisation, frames, rows):
    """Over all, and over every hour, key, model and tier: the rounding is not lost anywhere."""
    expected: defaultdict[tuple, int] = defaultdict(int)
    quantities: defaultdict[tuple, int] = defaultdict(int)
    for frame in frames:
        at = minted_on(frame.request_id)
        expected[(at, frame.model, frame.service_tier)] += frame.cost_nano
        for meter, used in (
            ("input_tokens", frame.tokens_in),
            ("output_tokens", frame.tokens_out),
            ("requests", frame.requests),
        ):
            quantities[(at, f"{frame.model}/{meter}")] += used
    billed: defaultdict[tuple, Decimal] = defaultdict(Decimal)
    consumed: defaultdict[tuple, Decimal] = defaultdict(Decimal)
    for row in rows:
        at = row["ChargePeriodStart"].astimezone(UTC).date()
        billed[(at, row["x_Model"], row["x_ServiceTier"])] += row["BilledCost"]
        consumed[(at, row["SkuId"])] += row["ConsumedQuantity"]
        assert row["EffectiveCost"] == row["BilledCost"]
    assert {key: value * 10**9 for key, value in billed.items()} == expected
    assert consumed == {key: used for key, used in quantities.items() if used}
    by_day = rows_of(worked(asked(organisation.id, "focus", "parquet")))
    assert sum(row["BilledCost"] for row in by_day) * 10**9 == sum(expected.values())
    # The rounding is real: products do not add up to it.
    assert sum(row["ListCost"] for row in rows) != sum(row["BilledCost"] for row in rows)


def test_tags_accounts_and_periods_are_said(organisation, frames, rows):
    del frames
    assert {row["Tags"] for row in rows} == {"{}", *(f'{{"team":"{t}"}}' for t in "abc")}
    for row in rows:
        assert row["BillingAccountName"] == "Acme"
        assert row["SubAccountName"] == "Default"
        assert (row["ResourceId"], row["ResourceName"]) == (str(organisation.key_id), "first key")
        assert row["BillingPeriodStart"].day == row["BillingPeriodEnd"].day == 1
        assert row["BillingPeriodStart"] <= row["ChargePeriodStart"] < row["ChargePeriodEnd"]
        assert row["ChargePeriodEnd"] <= row["BillingPeriodEnd"]
        assert (row["ChargePeriodEnd"] - row["ChargePeriodStart"]).total_seconds() <= 3600


def test_the_file_says_which_version_of_the_specification_it_follows(organisation, frames):
    del frames
    made = worked(asked(organisation.id, "focus", "parquet"))
    metadata = pq.read_schema(pa.BufferReader(content_of(made))).metadata
    assert metadata[b"FocusVersion"] == b"1.2"
    assert metadata[b"DataGenerator"] == b"Meterplane"
    first = rows_of(worked(asked(organisation.id, "focus", "csv")))[0]
    assert first["ChargePeriodEnd"].endswith("T00:00:00Z")


def test_usage_at_prices_nobody_knows_is_billed_whole_and_says_no_price(organisation):
    take_in([settle(organisation, cost_nano=10)])
    rows = rows_of(worked(asked(organisation.id, "focus", "parquet")))
    assert sum(row["BilledCost"] for row in rows) == Decimal("0.000000010")
    assert all(
        row["ListUnitPrice"] is None and row["ListCost"] == row["BilledCost"] for row in rows
    )


def test_a_split_adds_up_and_is_as_near_as_whole_parts_can_be():
    assert split_by_largest_remainder(10, [1, 1, 1]) == [4, 3, 3]
    assert split_by_largest_remainder(7, [0, 0, 0]) == [3, 2, 2]
    assert split_by_largest_remainder(0, [3, 0, 1]) == [0, 0, 0]
    assert split_by_largest_remainder(5, [0, 1, 0]) == [0, 5, 0]
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(500):
        weights = [chance.randrange(10 ** chance.randrange(15)) for _ in range(3)]
        amount = chance.randrange(10**12)
        parts = split_by_largest_remainder(amount, weights)
        assert sum(parts) == amount
        if any(weights):
            assert all(
                abs(part * sum(weights) - amount * weight) < sum(weights)
                for part, weight in zip(parts, weights, strict=True)
            )
