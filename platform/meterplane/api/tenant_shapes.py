"""What a tenant's own reads look like in JSON. Amounts are strings, instants RFC 3339 in UTC."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from billing.pricing.receipts import unit_prices_of
from meterplane.kernel.money import nano_to_text, pico_to_text
from meterplane.metering.queries import RequestRow
from meterplane.metering.usage_table import UsageRow, UsageTable

LISTED = (
    "model", "requested_model", "surface", "stream", "service_tier", "deployment", "status",
    "http_status", "tokens_in", "tokens_out", "requests", "provenance", "first_byte_ms", "total_ms",
)  # fmt: skip
DETAILED = (
    "rows", "bytes_in", "bytes_out", "tensor_bytes_in", "tensor_bytes_out", "queue_us",
    "compute_us", "retries", "trace_id", "priority", "region", "gpu_type",
)  # fmt: skip


def usage(table: UsageTable) -> dict[str, Any]:
    """A table of usage, and the totals of all that matched, one for each currency."""
    query = table.query
    return {
        "object": "usage",
        "from": _instant(query.start),
        "to": _instant(query.end),
        "bucket": query.bucket,
        "tz": query.zone.key,
        "group_by": list(query.group_by),
        "data": [_usage_row(row, query.group_by) for row in table.rows],
        "totals": [_usage_row(row, ()) for row in table.totals],
        "truncated": table.truncated,
    }


def _usage_row(row: UsageRow, names: Sequence[str]) -> dict[str, Any]:
    return {
        **({} if row.at is None else {"at": _instant(row.at)}),
        "groups": dict(zip(names, row.groups, strict=True)),
        "currency": row.currency,
        "events": row.events,
        "events_ok": row.events_ok,
        "requests": row.requests,
        "tokens_in": row.tokens_in,
        "tokens_out": row.tokens_out,
        "cost": nano_to_text(row.cost_nano),
        "mean_ms": row.mean_ms,
    }


def listed_request(row: RequestRow) -> dict[str, Any]:
    """One request, as a list tells of it."""
    return {
        "id": str(row.request_id),
        "object": "request",
        "at": _instant(row.event_at),
        "project_id": str(row.project_id),
        "key_id": str(row.key_id),
        **{name: getattr(row, name) for name in LISTED},
        "cost": nano_to_text(row.cost_nano),
        "currency": row.currency,
        "tags": dict(row.tags),
    }


def request(row: RequestRow) -> dict[str, Any]:
    """One request with its timeline and how its cost came about."""
    prices = unit_prices_of(row.price_version_id, row.model, row.service_tier)
    admitted_at = row.admitted_at or row.event_at
    first_byte_at = admitted_at + timedelta(milliseconds=row.first_byte_ms)
    return listed_request(row) | {
        **{name: getattr(row, name) for name in DETAILED},
        "reserved": nano_to_text(row.reserved_nano),
        "prices": None
        if prices is None
        else {
            "version_id": str(prices.version_id),
            "input_token": pico_to_text(prices.input_token_pico),
            "output_token": pico_to_text(prices.output_token_pico),
            "request": pico_to_text(prices.request_pico),
        },
        "timeline": {
            "received_at": _instant(row.event_at),
            "admitted_at": _instant(admitted_at),
            "first_byte_at": _instant(first_byte_at) if row.first_byte_ms else None,
            "settled_at": _instant(row.settled_at),
        },
        "receipt": f"/v1/receipts/{row.request_id}",
    }


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
