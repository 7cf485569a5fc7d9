"""One request: what happened when, what it cost and why, and every fact metered about it.

It is found by the id its caller got as `x-request-id`, typed whole; an id that names none is
answered with a sentence that says why, and how long requests are kept.
"""

from typing import Any
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_GET

from billing.invoicing.line_events import billed_on
from billing.pricing.receipts import receipt_of
from billing.pricing.request_cost import cost_lines
from meterplane.kernel import amounts
from meterplane.kernel.errors import CallerError
from meterplane.metering import labels
from meterplane.metering.queries import RequestRow
from meterplane.metering.reading import kept_in_words
from meterplane.metering.request_named import request_named
from meterplane.metering.timeline import Phase, moments, phases
from meterplane.portal.access import Acting, member_page, render_page
from meterplane.portal.usage_report import key_labels
from tenants.queries import list_projects

PHASE_LABELS = {"queue": "Queue", "first_token": "First token", "rest": "Rest of the answer"}
_US_PER_MS = 1000


@require_GET
@member_page
def find(request: HttpRequest, acting: Acting) -> HttpResponse:
    """To the request whose id was typed; or back to the box, with what is wrong with it."""
    typed = request.GET.get("q", "").strip()
    if not typed:
        return _not_found(request, acting, "", None)
    try:
        found = request_named(typed)
    except CallerError as refused:
        return _not_found(request, acting, typed, refused)
    return redirect("portal:request", str(found.request_id))


@require_GET
@member_page
def request_detail(request: HttpRequest, acting: Acting, request_id: str) -> HttpResponse:
    try:
        event = request_named(request_id)
    except CallerError as refused:
        return _not_found(request, acting, request_id, refused)
    lines = cost_lines(
        event.price_version_id,
        event.model,
        event.service_tier,
        tokens_in=event.tokens_in,
        tokens_out=event.tokens_out,
        requests=event.requests,
    )
    context = {
        "event": event,
        "tokens": event.tokens_in + event.tokens_out,
        "returned_nano": event.reserved_nano - event.cost_nano,
        "bar": _bar(event),
        "moments": moments(event),
        "cost_lines": lines,
        "price_decimals": _decimals([line.unit_price_pico for line in lines]),
        "product_decimals": _decimals([line.product_pico for line in lines]),
        "billed": billed_on(event),
        "tags": event.tags,
        "facts": _facts(event),
        "records": _records(event),
    }
    return render_page(request, acting, "usage", "portal/request.html", context)


@require_GET
@member_page
def receipt(request: HttpRequest, acting: Acting, request_id: UUID) -> HttpResponse:
    """The request's signed receipt, to keep."""
    content = receipt_of(request_id)
    if content is None:
        raise Http404
    response = HttpResponse(content, content_type="application/json")
    response["Content-Disposition"] = f'attachment; filename="receipt-{request_id}.json"'
    return response


def _not_found(
    request: HttpRequest, acting: Acting, typed: str, refused: CallerError | None
) -> HttpResponse:
    context = {"typed": typed[:100], "refused": refused, "kept": kept_in_words()}
    response = render_page(request, acting, "usage", "portal/requests.html", context)
    if refused is not None:
        response.status_code = refused.status
    return response


def _bar(event: RequestRow) -> list[dict[str, Any]]:
    """The phases as parts of a bar 1,000 wide, which they fill."""
    whole_us = event.total_ms * _US_PER_MS
    ends = [_permille(phase.start_us + phase.duration_us, whole_us) for phase in phases(event)]
    return [
        {
            "name": phase.name.replace("_", "-"),
            "label": PHASE_LABELS[phase.name],
            "shown": _duration(phase),
            "share": amounts.percent(phase.duration_us, whole_us),
            "x": begin,
            "width": end - begin,
        }
        for phase, begin, end in zip(phases(event), [0, *ends], ends, strict=False)
    ]


def _permille(part_us: int, whole_us: int) -> int:
    return part_us * 1000 // whole_us if whole_us else 0


def _duration(phase: Phase) -> str:
    if phase.duration_us % _US_PER_MS:
        return amounts.microseconds(phase.duration_us)
    return amounts.milliseconds(phase.duration_us // _US_PER_MS)


def _decimals(amounts_pico: list[int]) -> int:
    return amounts.decimals_needed(amounts_pico, amounts.PICO_DIGITS)


def _facts(event: RequestRow) -> list[dict[str, Any]]:
    projects = {project.id: project.name for project in list_projects()}
    facts = [
        ("Model", event.model, False),
        *_served_otherwise(event),
        ("Surface", labels.surface(event.surface), False),
        ("Tier", labels.tier(event.service_tier), False),
        ("Streamed", "yes" if event.stream else "no", False),
        ("Key", key_labels().get(str(event.key_id), str(event.key_id)), False),
        ("Project", projects.get(event.project_id, str(event.project_id)), False),
        ("Counts come from", labels.provenance(event.provenance), False),
        ("Held at the gateway", amounts.microseconds(event.queue_us), False),
        ("First byte after", amounts.milliseconds(event.first_byte_ms), False),
        ("At the server", amounts.microseconds(event.compute_us), False),
        ("Rows", f"{event.rows:,}", False),
        ("Bytes in", f"{event.bytes_in:,}", False),
        ("Bytes out", f"{event.bytes_out:,}", False),
        ("Tensor bytes in", f"{event.tensor_bytes_in:,}", False),
        ("Tensor bytes out", f"{event.tensor_bytes_out:,}", False),
    ]
    return _shown(facts)


def _records(event: RequestRow) -> list[dict[str, Any]]:
    """What names this request elsewhere: in a trace, a price book, the journal."""
    return _shown(
        [
            ("Request", event.request_id, True),
            ("Trace", event.trace_id or amounts.NOTHING, True),
            ("Price version", event.price_version_id, True),
            ("Journal segment", event.segment_id, True),
        ]
    )


def _shown(facts: list[tuple[str, Any, bool]]) -> list[dict[str, Any]]:
    return [{"label": label, "value": value, "mono": mono} for label, value, mono in facts]


def _served_otherwise(event: RequestRow) -> list[tuple[str, str, bool]]:
    """What is worth a line only when it happened: a fallback, a split, a place, a retry."""
    facts = []
    if event.requested_model and event.requested_model != event.model:
        facts.append(("Asked for", f"{event.requested_model}, answered by its fallback", False))
    if event.deployment:
        facts.append(("Deployment", event.deployment, False))
    if event.priority != "normal":
        facts.append(("Priority", labels.priority(event.priority), False))
    if event.region:
        facts.append(("Region", event.region, False))
    if event.gpu_type:
        facts.append(("GPU type", event.gpu_type, False))
    if event.retries:
        facts.append(("Servers asked before", str(event.retries), False))
    return facts
