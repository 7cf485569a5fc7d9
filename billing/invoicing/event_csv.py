"""The events behind a line as CSV, a page at a time; each page is read in a door of its own.

What was counted does not change, so the pages together are the line's events, whatever arrives
while they are read. Their units add up to the line's quantity.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from uuid import UUID

from billing.invoicing.line_events import line_source
from meterplane.metering import counted_events
from meterplane.metering.counted_events import CountedEvent, Slice
from meterplane.metering.queries import PAGE_ROWS_MAX
from meterplane.metering.usage_written import literal
from tenants.queries import list_keys, list_projects
from tenants.scoping import tenant_scope

HEADER = (
    "request_id", "received_at", "ingested_at", "project", "project_id", "key", "key_id", "status",
    "units",
)  # fmt: skip


def events_csv(tenant_id: UUID, invoice_id: UUID, line_id: UUID) -> Iterator[bytes]:
    """All events of a line, oldest first. Opens the doors itself.

    Raises what `line_source` raises, before the first block.
    """
    with tenant_scope(tenant_id):
        part = line_source(invoice_id, line_id).part
        projects = {project.id: project.name for project in list_projects()}
        keys = {key.id: key.name for key in list_keys()}
    return _blocks(tenant_id, part, projects, keys)


def _blocks(
    tenant_id: UUID, part: Slice, projects: dict[UUID, str], keys: dict[UUID, str]
) -> Iterator[bytes]:
    yield _text([HEADER])
    after: UUID | None = None
    while True:
        with tenant_scope(tenant_id):
            rows = counted_events.page(part, PAGE_ROWS_MAX, after)
        if rows:
            yield _text([_row(event, projects, keys) for event in rows])
        if len(rows) < PAGE_ROWS_MAX:
            return
        after = rows[-1].request_id


def _row(event: CountedEvent, projects: dict[UUID, str], keys: dict[UUID, str]) -> Sequence[object]:
    return (
        event.request_id,
        event.received_at.isoformat(),
        event.ingested_at.isoformat(),
        literal(projects.get(event.project_id, "")),
        event.project_id,
        literal(keys.get(event.key_id, "")),
        event.key_id,
        event.status,
        event.units,
    )


def _text(rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
