"""What an API key may read of its project under `/v1`: usage, requests, receipts.

Guarantees: another project's request, and another organisation's, is a 404 equal to a missing one.
A request that was answered a moment ago is not in usage yet: its 404 says when to ask again, and
says so of any id that was minted in the last minute, whoever's it is.
"""

from collections.abc import Mapping
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.views.decorators.http import require_safe

from billing.pricing.receipts import receipt_of
from meterplane.api import tenant_shapes
from meterplane.contracts.receipt import canonical, key_set, signing_keys
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.kernel.ids import minted_at_ms
from meterplane.metering.queries import recent_requests, request_by_id
from meterplane.metering.reading import day_of
from meterplane.metering.usage_query import parse, parse_requests
from meterplane.metering.usage_table import run
from tenants.callers import Caller
from tenants.edge import answers, as_json
from tenants.scoping import tenant_scope

PAGE, PAGE_MAX = 20, 100
FRESH_MS = 60_000  # a request's usage is seen within seconds; after a minute it is missing


@answers("GET")
def usage(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    """Usage of the key's project, by what `usage_query` lists."""
    query = parse(_of_project(dict(request.GET.lists()), caller))
    with tenant_scope(caller.tenant_id):
        table = run(query)
    return as_json(tenant_shapes.usage(table))


@answers("GET")
def requests(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    """The project's requests, newest first, filtered as usage is."""
    given = dict(request.GET.lists())
    limit, after = _limit(given.pop("limit", [])), _after(given.pop("after", []))
    asked = parse_requests(_of_project(given, caller), limit_default=limit, limit_max=PAGE_MAX)
    with tenant_scope(caller.tenant_id):
        rows = recent_requests(
            limit + 1, after, filters=asked.filters, since=asked.since, until=asked.until
        )
    shown = [tenant_shapes.listed_request(row) for row in rows[:limit]]
    return as_json(
        {
            "object": "list",
            "data": shown,
            "first_id": shown[0]["id"] if shown else None,
            "last_id": shown[-1]["id"] if shown else None,
            "has_more": len(rows) > limit,
        }
    )


@answers("GET")
def request_detail(request: HttpRequest, caller: Caller, request_id: str) -> HttpResponseBase:
    """One request with its timeline, and how its cost came about."""
    wanted = _id(request_id)
    with tenant_scope(caller.tenant_id):
        row = request_by_id(wanted)
        if row is None or row.project_id != caller.project_id:
            raise _missing(wanted)
        return as_json(tenant_shapes.request(row))


@answers("GET")
def receipt(request: HttpRequest, caller: Caller, request_id: str) -> HttpResponseBase:
    """The signed receipt of one request; the same bytes each time."""
    wanted = _id(request_id)
    with tenant_scope(caller.tenant_id):
        content = receipt_of(wanted, caller.project_id)
    if content is None:
        raise _missing(wanted)
    return HttpResponse(content, content_type="application/json")


@require_safe
def public_keys(request: HttpRequest) -> HttpResponse:
    """The keys receipts are verified with, as a JWKS; those that sign no more among them."""
    keys = signing_keys(settings.RECEIPT_SIGNING_KEYS)
    response = HttpResponse(canonical(key_set(keys)), content_type="application/jwk-set+json")
    response["Cache-Control"] = "public, max-age=300"
    return response


def _of_project(given: Mapping[str, list[str]], caller: Caller) -> dict[str, list[str]]:
    """The question within the key's project. Raises `CallerError` for one beyond it."""
    own = {"project": str(caller.project_id), "organisation": str(caller.tenant_id)}
    for name, mine in own.items():
        for text in given.get(name, []):
            if text.lower() != mine:
                raise CallerError(
                    "not_found", f"This key reads the usage of its own {name} only.", status=404,
                    field=name,
                )  # fmt: skip
    return {**given, "project": [own["project"]]}


def _limit(given: list[str]) -> int:
    text = given[0] if len(given) == 1 else "" if given else str(PAGE)
    limit = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if not 1 <= limit <= PAGE_MAX:
        raise CallerError(
            "invalid_limit", f"limit must be a number from 1 to {PAGE_MAX}.", field="limit"
        )
    return limit


def _after(given: list[str]) -> UUID | None:
    if not given:
        return None
    after = _parsed(given[0]) if len(given) == 1 else None
    if after is None or day_of(after) is None:
        raise CallerError(
            "invalid_cursor", "after must be the last_id of the page before.", field="after"
        )
    return after


def _id(text: str) -> UUID:
    found = _parsed(text)
    if found is None:
        raise CallerError(
            "request_not_found", f"No such request: {text[:80]}", status=404, field="request_id"
        )
    return found


def _parsed(text: str) -> UUID | None:
    try:
        found = UUID(text)
    except ValueError:
        return None
    return found if str(found) == text.lower() else None


def _missing(request_id: UUID) -> CallerError:
    if request_id.version == 7 and abs(clock.now_ms() - minted_at_ms(request_id)) < FRESH_MS:
        return CallerError(
            "request_not_found",
            f"No such request yet: {request_id}. Usage shows within seconds of its answer; ask"
            " again.",
            status=404,
            field="request_id",
            retry_after_s=1,
        )
    return CallerError(
        "request_not_found", f"No such request: {request_id}", status=404, field="request_id"
    )
