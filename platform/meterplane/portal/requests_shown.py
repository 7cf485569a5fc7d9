"""Requests as the portal lists them: with the name of their key, which metering does not know."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from meterplane.kernel import amounts
from meterplane.metering.queries import RequestRow, recent_requests
from meterplane.metering.usage_query import Filters
from meterplane.portal.usage_report import key_labels

ROWS_PER_PAGE = 25


@dataclass(frozen=True, slots=True)
class ListedRequest:
    """One line of a list."""

    request_id: UUID
    admitted_at: datetime
    model: str
    service_tier: str
    key_label: str
    status: str
    tokens_in: int
    tokens_out: int
    total_ms: int
    cost_nano: int
    currency: str

    @property
    def tokens(self) -> int:
        return self.tokens_in + self.tokens_out


def listed(
    limit: int = ROWS_PER_PAGE, before: UUID | None = None, filters: Filters | None = None
) -> list[ListedRequest]:
    """The newest requests of the open door that match, or those older than `before`."""
    rows = recent_requests(limit, before, filters=filters)
    labels = key_labels() if rows else {}
    return [_listed(row, labels) for row in rows]


def _listed(row: RequestRow, labels: dict[str, str]) -> ListedRequest:
    return ListedRequest(
        request_id=row.request_id,
        admitted_at=row.event_at,
        model=row.model,
        service_tier=row.service_tier,
        key_label=labels.get(str(row.key_id), amounts.NOTHING),
        status=row.status,
        tokens_in=row.tokens_in,
        tokens_out=row.tokens_out,
        total_ms=row.total_ms,
        cost_nano=row.cost_nano,
        currency=row.currency,
    )
