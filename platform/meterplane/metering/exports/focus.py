"""Usage as cost-and-usage rows of the FinOps Open Cost and Usage Specification, FOCUS 1.2.

One row per hour or day, project, key, model, service tier, price version, set of tags, and meter
(input tokens, output tokens, requests) that was used. All columns of the specification are there;
those of things we do not have (regions, commitments, reservations) are null. `x_` columns are ours.

Money. `ListCost` and `ContractedCost` are quantity x unit price of the version the requests were
admitted under, exactly, in pico. `BilledCost` and `EffectiveCost` are a meter's part of what the
events cost: an event's cost is rounded to nano once, over its meters together, so a row's product
need not be its part. The sum of the events' costs is split over the meters in proportion to their
products, by largest remainder: over any rows that belong together, `BilledCost` adds up to the
cost of the events to the nano. Invoices round once per line; their number is not known here.

An account's names are those it has when a page is read. Usage is read from events, so FOCUS rows
reach as far back as events are kept.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pyarrow as pa  # type: ignore[import-untyped]
from django.conf import settings

from meterplane.kernel.money import split_by_largest_remainder
from meterplane.metering import labels
from meterplane.metering.event_table import money, tags_text
from meterplane.metering.exports.focus_columns import METERS, schema
from meterplane.metering.exports.limits import PAGE_ROWS
from meterplane.metering.exports.query import ExportQuery
from meterplane.metering.exports.source import NOBODY, Page, Place, Source, conditions
from meterplane.metering.price_port import UnitPrices, VersionPrices, prices_of_version
from meterplane.metering.reading import of_door, read

# What rows are told apart by beside the period, and how it sorts: C, or a library's update would.
_KEY = (
    "tenant_id", "project_id", "key_id", 'model COLLATE "C"', 'service_tier COLLATE "C"',
    "price_version_id", 'currency COLLATE "C"', 'tags::text COLLATE "C"', 'region COLLATE "C"',
)  # fmt: skip
_FIRST_KEY = [NOBODY, NOBODY, NOBODY, "", "", NOBODY, "", "", ""]
_LONG_AGO = "1970-01-01T00:00:00+00:00"
_COST = 3  # its place among the sums: requests, tokens in, tokens out, cost


def focus_source(query: ExportQuery, ingested_until: datetime) -> Source:
    """FOCUS rows, a page of groups at a time."""
    where, parameters = conditions(query)
    period = f"date_trunc('{'hour' if query.bucket == 'hour' else 'day'}', event_at, 'UTC')"
    key = ", ".join((period, *_KEY))
    behind = ", ".join(f"%(after{number})s" for number in range(len(_KEY) + 1))
    statement = (
        f"SELECT {key}, sum(requests), sum(tokens_in), sum(tokens_out), sum(cost_nano)"  # noqa: S608
        f" FROM usage_event WHERE {where} AND event_day = %(day)s AND event_at >= %(start)s"
        f" AND event_at < %(end)s AND ingested_at <= %(ingested_until)s AND ({key}) > ({behind})"
        f" GROUP BY {key} ORDER BY {key} LIMIT %(groups_max)s"
    )
    # A group is three rows at most.
    groups_max = PAGE_ROWS // len(METERS)
    parameters |= {
        "start": query.start,
        "end": query.end,
        "ingested_until": ingested_until,
        "groups_max": groups_max,
    }
    table_schema = schema(settings.PROVIDER_NAME)
    prices: dict[UUID, VersionPrices] = {}

    def page(place: Place) -> Page:
        # One that was begun before regions were told stopped behind a group of none.
        after = [*place[1:], *_FIRST_KEY[len(place) - 2 :]]
        bounds = {f"after{number}": value for number, value in enumerate(after)}
        groups = read(statement, parameters | bounds | {"day": place[0]})
        for group in groups:
            if (version := group[6]) not in prices:
                prices[version] = prices_of_version(version)
        names = _names(groups)
        cost: dict[str, int] = {}
        rows: list[dict[str, Any]] = []
        for group in groups:
            cost[group[7]] = cost.get(group[7], 0) + int(group[-1])
            rows += _rows_of(query, group, prices[group[6]], names)
        following = (
            [place[0], group[0].isoformat(), *(str(part) for part in group[1 : len(_KEY) + 1])]
            if len(groups) == groups_max
            else _next_day(query, place[0])
        )
        return Page(pa.RecordBatch.from_pylist(rows, schema=table_schema), following, cost)

    first = [query.first_day.isoformat(), _LONG_AGO, *_FIRST_KEY]
    return Source(table_schema, first, page, timespec="seconds")


def _next_day(query: ExportQuery, day: str) -> Place | None:
    after = date.fromisoformat(day) + timedelta(days=1)
    return [after.isoformat(), _LONG_AGO, *_FIRST_KEY] if after <= query.last_day else None


def _rows_of(
    query: ExportQuery, group: tuple[Any, ...], prices: VersionPrices, names: dict[UUID, str]
) -> Iterator[dict[str, Any]]:
    """The rows of one group, a meter each; none for a meter nothing was used of."""
    period, tenant_id, project_id, key_id, model, tier, version_id, currency, tags, region = group[
        : len(_KEY) + 1
    ]
    sums = [int(each) for each in group[len(_KEY) + 1 :]]
    unit = prices.get((model, tier))
    quantities = {"requests": sums[0], "input_tokens": sums[1], "output_tokens": sums[2]}
    products = {meter: quantities[meter] * (_pico(unit, meter) or 0) for meter in METERS}
    # Of a version that is not known here no product is: then the cost is split by what was used.
    weights = products if any(products.values()) else quantities
    billed = split_by_largest_remainder(sums[_COST], [weights[meter] for meter in METERS])
    start, end = _charge_period(query, period)
    month = start.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    shared = {
        "BillingAccountId": str(tenant_id),
        "BillingAccountName": names.get(tenant_id),
        "BillingAccountType": "Organisation",
        "BillingCurrency": currency,
        "BillingPeriodStart": month,
        "BillingPeriodEnd": (month + timedelta(days=32)).replace(day=1),
        "ChargePeriodStart": start,
        "ChargePeriodEnd": end,
        "PricingCurrency": currency,
        # FOCUS: null, and not an empty text, where it is not known.
        "RegionId": region or None,
        "RegionName": region or None,
        "ResourceId": str(key_id),
        "ResourceName": names.get(key_id),
        "SubAccountId": str(project_id),
        "SubAccountName": names.get(project_id),
        "Tags": tags_text(tags),
        "x_Model": model,
        "x_PriceVersionId": str(version_id),
        "x_ServiceTier": tier,
    } | _CONSTANT | dict.fromkeys(_ISSUERS, settings.PROVIDER_NAME)  # fmt: skip
    for meter, billed_nano in zip(METERS, billed, strict=True):
        if quantities[meter] or billed_nano:
            price_pico = _pico(unit, meter)
            yield shared | _of_meter(meter, model, tier, quantities[meter], price_pico, billed_nano)


_ISSUERS = ("InvoiceIssuerName", "ProviderName", "PublisherName")
_CONSTANT = {
    "ChargeCategory": "Usage",
    "ChargeFrequency": "Usage-Based",
    "PricingCategory": "Standard",
    "ResourceType": "API key",
    "ServiceCategory": "AI and Machine Learning",
    "ServiceName": "Inference",
    "ServiceSubcategory": "Generative AI",
    "SubAccountType": "Project",
}


def _of_meter(
    meter: str, model: str, tier: str, quantity: int, price_pico: int | None, billed_nano: int
) -> dict[str, Any]:
    described, unit = METERS[meter]
    price = None if price_pico is None else Decimal(price_pico).scaleb(-12)
    billed = money(billed_nano)
    product = billed if price is None else quantity * price
    details = {"x_Meter": meter, "x_Model": model, "x_ServiceTier": tier}
    return {
        "BilledCost": billed,
        "ChargeDescription": f"{described} of {model}, {labels.tier(tier).lower()}",
        "ConsumedQuantity": Decimal(quantity),
        "ConsumedUnit": unit,
        "ContractedCost": product,
        "ContractedUnitPrice": price,
        "EffectiveCost": billed,
        "ListCost": product,
        "ListUnitPrice": price,
        "PricingCurrencyContractedUnitPrice": price,
        "PricingCurrencyEffectiveCost": billed,
        "PricingCurrencyListUnitPrice": price,
        "PricingQuantity": Decimal(quantity),
        "PricingUnit": unit,
        "SkuId": f"{model}/{meter}",
        "SkuMeter": described,
        "SkuPriceDetails": msgspec.json.encode(details).decode(),
        "SkuPriceId": f"{model}/{meter}/{tier}",
    }


def _pico(prices: UnitPrices | None, meter: str) -> int | None:
    if prices is None:
        return None
    return {
        "input_tokens": prices.input_token_pico,
        "output_tokens": prices.output_token_pico,
        "requests": prices.request_pico,
    }[meter]


def _charge_period(query: ExportQuery, start: datetime) -> tuple[datetime, datetime]:
    """The hour or day, as far as it is of the interval."""
    start = start.astimezone(UTC)
    end = start + (timedelta(hours=1) if query.bucket == "hour" else timedelta(days=1))
    return max(start, query.start), min(end, query.end)


def _names(groups: list[tuple[Any, ...]]) -> dict[UUID, str]:
    """What organisations, projects and keys of these groups are called."""
    door, parameters = of_door()
    found: dict[UUID, str] = {}
    for table, column in (("organisation", 1), ("project", 2), ("api_key", 3)):
        ids = list({group[column] for group in groups})
        if ids:
            mine = door.replace("tenant_id", "id", 1) if table == "organisation" else door
            rows = read(
                f"SELECT id, name FROM {table} WHERE {mine} AND id = ANY(%(ids)s)",  # noqa: S608
                parameters | {"ids": ids},
            )
            found |= {row[0]: row[1] for row in rows}
    return found
