"""Stripe's lists: newest first, cursors by id, `has_more`, ranges over `created`.

Pages follow the order of creation, so walking them with `starting_after` meets every object that
existed at the start exactly once, whatever is added meanwhile.
"""

from collections.abc import Mapping
from typing import Any

from stripe_sandbox.call import Call
from stripe_sandbox.errors import no_such, refused
from stripe_sandbox.params import Integer, Parameter, Reference
from stripe_sandbox.store import Document, Where

DEFAULT_ROWS = 10
MAX_ROWS = 100

PAGE: Mapping[str, Parameter] = {
    "limit": Integer(1, MAX_ROWS),
    "starting_after": Reference(),
    "ending_before": Reference(),
}

_OPERATORS = {"eq": "=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def created_in(bounds: Mapping[str, int] | None) -> list[tuple[str, Any]]:
    """Conditions for a `created` range."""
    return [(f"created {_OPERATORS[name]} ?", value) for name, value in (bounds or {}).items()]


def page(
    call: Call, kind: str, url: str, where: Where = (), *, ascending: bool = False
) -> Document:
    """One page of `kind`; the caller renders its rows."""
    after, before = call.params.get("starting_after"), call.params.get("ending_before")
    if after is not None and before is not None:
        raise refused(
            "You may only specify one of these parameters: starting_after, ending_before."
        )
    limit = call.params.get("limit", DEFAULT_ROWS)
    conditions = list(where)
    # `ending_before` reads away from its cursor, against the list's order, and is turned round.
    reading_up = ascending
    if after is not None:
        operator = ">" if ascending else "<"
        conditions.append((f"seq {operator} ?", _cursor(call, kind, after, "starting_after")))
    if before is not None:
        operator = "<" if ascending else ">"
        conditions.append((f"seq {operator} ?", _cursor(call, kind, before, "ending_before")))
        reading_up = not ascending
    rows = call.store.select(kind, conditions, ascending=reading_up, limit=limit + 1)
    kept = rows[:limit]
    if before is not None:
        kept.reverse()
    return listed(kept, url, has_more=len(rows) > limit)


def page_of(call: Call, rows: list[Document], url: str) -> Document:
    """One page of rows that lie inside another document, in their own order."""
    after, before = call.params.get("starting_after"), call.params.get("ending_before")
    if after is not None and before is not None:
        raise refused(
            "You may only specify one of these parameters: starting_after, ending_before."
        )
    limit = call.params.get("limit", DEFAULT_ROWS)
    places = {row["id"]: place for place, row in enumerate(rows)}
    for param, cursor in (("starting_after", after), ("ending_before", before)):
        if cursor is not None and cursor not in places:
            raise no_such("line_item", cursor, param, in_path=False)
    if before is not None:
        end = places[before]
        start = max(0, end - limit)
        return listed(rows[start:end], url, has_more=start > 0)
    start = 0 if after is None else places[after] + 1
    return listed(rows[start : start + limit], url, has_more=start + limit < len(rows))


def listed(rows: list[Document], url: str, *, has_more: bool = False) -> Document:
    """The list object around rows."""
    return {"object": "list", "data": rows, "has_more": has_more, "url": url}


def _cursor(call: Call, kind: str, object_id: str, param: str) -> int:
    seq = call.store.seq_of(kind, object_id)
    if seq is None:
        raise no_such(kind, object_id, param, in_path=False)
    return seq
