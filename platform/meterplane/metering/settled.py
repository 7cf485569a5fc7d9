"""One usage event with everything that is told of it: what a receipt is made from."""

import json
from dataclasses import fields
from uuid import UUID

from meterplane.contracts.receipt import SettledRequest
from meterplane.metering.reading import day_of, of_door, read

# Events of before it was kept when they were admitted: their id was minted as they came in.
_EXPRESSIONS = {"admitted_at": "COALESCE(admitted_at, event_at)", "prices": "NULL"}
_COLUMNS = ", ".join(_EXPRESSIONS.get(each.name, each.name) for each in fields(SettledRequest))
_STATEMENT = f"SELECT {_COLUMNS}, price_version_id FROM usage_event WHERE "  # noqa: S608


def settled_request(request_id: UUID) -> tuple[SettledRequest, UUID] | None:
    """A request of the open door without its prices, and the version they are of; None: there is
    none, or it is not taken in yet."""
    day = day_of(request_id)
    if day is None:
        return None
    door, parameters = of_door()
    rows = read(
        f"{_STATEMENT} {door} AND event_day = %(event_day)s AND request_id = %(request_id)s",
        parameters | {"event_day": day, "request_id": request_id},
    )
    if not rows:
        return None
    names = [each.name for each in fields(SettledRequest)]
    *values, price_version_id = rows[0]
    found = dict(zip(names, values, strict=True))
    return SettledRequest(**found | {"tags": json.loads(found["tags"])}), price_version_id
