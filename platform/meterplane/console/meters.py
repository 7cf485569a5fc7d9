"""Meters: how each counts, its versions, and what it counted in the last days. To look at.

A meter is made and changed through the control API, where a program keeps what it says beside its
own code. Not a changelist: the product's own meters have no row.
"""

from datetime import timedelta

import msgspec
from django.http import Http404, HttpRequest
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html

from meterplane.catalog.meters import (
    BUILT_IN,
    MeterDefinition,
    Version,
    at,
    list_meters,
    versions_of,
)
from meterplane.console import shown
from meterplane.console.site import site
from meterplane.kernel import amounts, clock
from meterplane.kernel.errors import CallerError
from meterplane.metering.meters.evaluate import usage_of

DAYS_SHOWN = 30
HEADERS = ["Meter", "Name", "Counts", "Of", "Unit", "Version", "Made by"]
VERSION_HEADERS = ["Version", "From", "Until", "Counts", "Filters", "Dimensions", "Made by"]
VALUE_HEADERS = ["Day (UTC)", "Version", "Value", "Unit"]


def meters(request: HttpRequest) -> TemplateResponse:
    """All meters."""
    now = clock.now()
    rows = [_cells(versions, at(versions, now)) for versions in list_meters()]
    context = {
        **site.each_context(request),
        "title": "Meters",
        "tables": [{"headers": HEADERS, "rows": rows}],
    }
    return TemplateResponse(request, "console/tables.html", context)


def meter(request: HttpRequest, slug: str) -> TemplateResponse:
    """One meter: its versions, and what it counted over all organisations by day."""
    try:
        versions = versions_of(slug)
    except CallerError as missing:
        raise Http404(missing.message) from None
    now = clock.now()
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    counted = usage_of(versions, today - timedelta(days=DAYS_SHOWN - 1), now, unit="day")
    units = {each.number: each.definition.unit for each in versions}
    values = [
        [f"{row.bucket:%Y-%m-%d}", str(row.version), row.value, units[row.version]]
        for row in reversed(counted.rows)
    ]
    context = {
        **site.each_context(request),
        "title": f"Meter {slug}",
        "tables": [
            {
                "title": "Versions",
                "headers": VERSION_HEADERS,
                "rows": [_version_cells(each) for each in reversed(versions)],
            },
            {
                "title": f"Counted in the last {DAYS_SHOWN} days, of all organisations",
                "headers": VALUE_HEADERS,
                "rows": values,
            },
        ],
        "back_url": reverse("console:meters"),
    }
    return TemplateResponse(request, "console/tables.html", context)


def meter_urls() -> list[URLPattern]:
    """Mounted by the site."""
    return [
        path("meters/", site.admin_view(meters), name="meters"),
        path("meters/<slug:slug>/", site.admin_view(meter), name="meter"),
    ]


def _cells(versions: list[Version], now: Version) -> list[str]:
    it = now.definition
    link = format_html(
        '<a class="text-primary-600" href="{}">{}</a>',
        reverse("console:meter", args=[now.slug]),
        now.slug,
    )
    return [
        link,
        it.name,
        _counts(it),
        it.event_type,
        it.unit,
        f"{now.number} of {len(versions)}",
        "built in" if now.slug in BUILT_IN else now.created_by,
    ]


def _version_cells(version: Version) -> list[str]:
    it = version.definition
    filters = [f"{each.field} {each.op} {msgspec.json.encode(each.value).decode()}"
               for each in it.filters]  # fmt: skip
    built_in = version.slug in BUILT_IN
    return [
        str(version.number),
        "the beginning" if version.number == 1 else shown.utc(version.effective_from),
        shown.utc(version.effective_until),
        f"{_counts(it)}{_conversion(it)} in {it.unit}, of {it.event_type}",
        ", ".join(filters) or amounts.NOTHING,
        ", ".join(it.dimensions) or amounts.NOTHING,
        "built in" if built_in else f"{version.created_by}, {shown.utc(version.created_at)}",
    ]


def _counts(it: MeterDefinition) -> str:
    return f"{it.aggregation} of {it.field}" if it.field else it.aggregation


def _conversion(it: MeterDefinition) -> str:
    text = ""
    if it.conversion is not None:
        sign = "×" if it.conversion.operation == "multiply" else "÷"  # noqa: RUF001  as people write
        text = f" {sign} {it.conversion.by}"
    if it.rounding.rule != "none":
        text += f", {it.rounding.rule} to {it.rounding.digits} digits"
    return text
