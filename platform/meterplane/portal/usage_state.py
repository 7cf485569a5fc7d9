"""What the usage page shows, as its address says it: every view of it can be shared.

What is not known is the default, and a filter that nothing can match is left out: an address is
never an error. The zone is remembered in the session, for addresses that name none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from django.http import HttpRequest
from django.urls import reverse

from meterplane.kernel.errors import CallerError
from meterplane.metering.buckets import zone_named
from meterplane.metering.usage_query import TAG, TAGS_FILTERED_MAX, Filters, check_filters
from meterplane.portal import periods

Metric = Literal["spend", "requests", "tokens"]

GROUPS: dict[str, str] = {
    "model": "Model",
    "project": "Project",
    "key": "Key",
    "status": "Status",
    "surface": "Surface",
    "service_tier": "Tier",
    "deployment": "Deployment",
    "priority": "Priority",
    "region": "Region",
    "gpu_type": "GPU type",
}
METRICS: dict[Metric, str] = {"spend": "Spend", "requests": "Requests", "tokens": "Tokens"}
ZONE_SESSION_KEY = "zone"


@dataclass(frozen=True, slots=True)
class UsageState:
    """`bucket` is empty where the period's usual one is meant."""

    period: periods.PeriodName
    group: str
    metric: Metric
    bucket: str
    zone: ZoneInfo
    filters: Filters

    def address(self, **more: str) -> str:
        """The address of this view; what is usual is left out of it."""
        usual = {"period": "7d", "group": "model", "metric": "spend", "bucket": "", "tz": "UTC"}
        pairs = [(name, value) for name, value in self.pairs() if value != usual.get(name)]
        query = urlencode([*pairs, *more.items()])
        return reverse("portal:usage") + (f"?{query}" if query else "")

    def pairs(self) -> list[tuple[str, str]]:
        """Every parameter with its value, in the order of the address."""
        chosen = [("period", self.period), ("group", self.group), ("metric", self.metric)]
        chosen += [("bucket", self.bucket), ("tz", self.zone.key)]
        return [
            *chosen,
            *((name, value) for name, values in self.filters.items() for value in values),
        ]

    def narrowed(self, name: str, value: str) -> "UsageState":
        """With this one value of a dimension."""
        return replace(self, filters={**self.filters, name: (value,)})

    def without(self, name: str, value: str) -> "UsageState":
        """With one value of a filter less."""
        left = tuple(each for each in self.filters[name] if each != value)
        rest = {each: values for each, values in self.filters.items() if each != name}
        return replace(self, filters=rest | ({name: left} if left else {}))

    @property
    def group_label(self) -> str:
        return dimension_label(self.group)


def read_state(request: HttpRequest, tag_names: Sequence[str]) -> UsageState:
    """The view that an address names. Remembers a zone that it names."""
    groups = {*GROUPS, *(TAG + name for name in tag_names)}
    asked = request.GET
    period: periods.PeriodName = next(
        (name for name in periods.LABELS if name == asked.get("period")), "7d"
    )
    bucket = asked.get("bucket", "")
    drawn_by = periods.BUCKETS[period]
    return UsageState(
        period=period,
        group=asked["group"] if asked.get("group") in groups else "model",
        metric=next((name for name in METRICS if name == asked.get("metric")), "spend"),
        bucket=bucket if bucket in drawn_by and bucket != drawn_by[0] else "",
        zone=_zone(request),
        filters=_filters(dict(asked.lists())),
    )


def dimension_label(name: str) -> str:
    """`Model`; of a tag its own name."""
    return GROUPS.get(name) or name.removeprefix(TAG)


def choices(state: UsageState, name: str, labels: Mapping[Any, str]) -> list[dict[str, Any]]:
    """Links to the same view with another value of one parameter."""
    current = getattr(state, name)
    return [
        {
            "label": label,
            "url": replace(state, **{name: value}).address(),
            "current": current == value,
        }
        for value, label in labels.items()
    ]


def _zone(request: HttpRequest) -> ZoneInfo:
    remembered = request.session.get(ZONE_SESSION_KEY, "UTC")
    for name in (request.GET.get("tz", ""), remembered):
        try:
            zone = zone_named(name)
        except CallerError:
            continue
        if zone.key != remembered:
            request.session[ZONE_SESSION_KEY] = zone.key
        return zone
    return ZoneInfo("UTC")


def _filters(asked: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    tags = 0
    for name, given in asked.items():
        if name not in GROUPS and not name.startswith(TAG):
            continue
        values = tuple(dict.fromkeys(value for value in given if value))
        try:
            check_filters({name: values})
        except CallerError:
            continue
        tags += name.startswith(TAG)
        if tags <= TAGS_FILTERED_MAX:
            found[name] = values
    return found
