"""Search over invoices, with Stripe's query language in part and its lag on purpose.

What is found is the state of a while ago (`search_lag_s` of the control door, a minute at first):
a client that searches for what it has just written must not find it here either. Understood are
`field:"value"`, `field>1`, `metadata["key"]:"value"`, `-` for not, and AND or OR, never both.
"""

import json
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from stripe_sandbox import clock, settings
from stripe_sandbox.call import Call
from stripe_sandbox.errors import refused
from stripe_sandbox.params import Integer, Takes, Text
from stripe_sandbox.render import public
from stripe_sandbox.store import Document

MAX_CLAUSES = 10

SEARCH = Takes(
    {
        "limit": Integer(1, 100),
        "page": Text(max_chars=200, keeps=True),
        "query": Text(max_chars=2_000, keeps=True),
    },
    required=("query",),
)

_CLAUSE = re.compile(
    r"^(?P<no>-?)(?P<field>[a-z_]+)(?:\[[\"'](?P<key>[^\"']+)[\"']\])?"
    r"(?P<op>[:~]|[<>]=?)(?P<value>\"[^\"]*\"|'[^']*'|-?\d+|null)$"
)
_TEXTS = frozenset({"currency", "customer", "metadata", "number", "receipt_number", "status"})
_NUMBERS = frozenset({"created", "total"})
_COMPARE: Mapping[str, Callable[[int, int], bool]] = {
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}


def search(call: Call) -> Document:
    joined, clauses = _parsed(call.params["query"])
    visible_before_ms = clock.now_ms() - settings.read(call.store, "search_lag_s") * 1000
    rows = call.store.connection.execute(
        "SELECT body, deleted FROM searchable AS s WHERE seen_ms <= ? AND seq ="
        " (SELECT max(seq) FROM searchable WHERE id = s.id AND seen_ms <= ?) ORDER BY s.first DESC",
        (visible_before_ms, visible_before_ms),
    ).fetchall()
    found = [json.loads(body) for body, deleted in rows if not deleted]
    kept = [each for each in found if joined(_holds(each, clause) for clause in clauses)]
    start = _start(call, len(kept))
    end = start + call.params.get("limit", 10)
    return {
        "object": "search_result",
        "data": [public(call, invoice) for invoice in kept[start:end]],
        "has_more": end < len(kept),
        "next_page": str(end) if end < len(kept) else None,
        "url": "/v1/invoices/search",
    }


def _start(call: Call, found: int) -> int:
    place = call.params.get("page", "0")
    if not place.isdecimal() or int(place) > found:
        raise refused("Invalid page: use the `next_page` of the page before.", param="page")
    return int(place)


def _parsed(query: str) -> tuple[Any, list[dict[str, Any]]]:
    either, both = re.split(r"\s+OR\s+", query), re.split(r"\s+AND\s+|\s+(?!OR\s)", query)
    if len(either) > 1 and re.search(r"\sAND\s", query):
        raise refused("A query cannot mix AND and OR.", param="query")
    parts = either if len(either) > 1 else both
    if len(parts) > MAX_CLAUSES:
        raise refused(f"A query has at most {MAX_CLAUSES} clauses.", param="query")
    return (any if len(either) > 1 else all), [_clause(part.strip()) for part in parts]


def _clause(text: str) -> dict[str, Any]:
    match = _CLAUSE.match(text)
    if match is None:
        raise refused(f"We were unable to parse your search query: {text[:60]}", param="query")
    clause = match.groupdict()
    field, numeric = clause["field"], clause["op"] in ("<", ">", "<=", ">=")
    if field not in _TEXTS | _NUMBERS or (numeric and field not in _NUMBERS):
        raise refused(f"Field `{field}` is an unsupported search field here.", param="query")
    if numeric and not re.fullmatch(r"-?\d{1,15}", clause["value"]):
        raise refused(f"Compare `{field}` with a whole number.", param="query")
    if (field == "metadata") != (clause["key"] is not None):
        raise refused('Search metadata as metadata["key"].', param="query")
    return clause


def _holds(invoice: Document, clause: dict[str, Any]) -> bool:
    value = invoice.get(clause["field"])
    if clause["key"] is not None:
        value = (value or {}).get(clause["key"])
    asked, op = clause["value"].strip("\"'"), clause["op"]
    if clause["value"] == "null":
        holds = value is None
    elif value is None:
        holds = False
    elif op == "~":
        holds = asked.lower() in str(value).lower()
    elif op == ":":
        holds = str(value).lower() == asked.lower()
    else:
        holds = _COMPARE[op](int(value), int(asked))
    return bool(holds != (clause["no"] == "-"))
