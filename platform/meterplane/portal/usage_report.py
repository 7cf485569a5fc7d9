"""One period of usage, grouped: figures, chart, table and CSV of the same rows.

The table is the truth: the CSV holds exactly its rows, and the chart draws them per bucket. The
costliest `SERIES_MAX` groups have colours of their own, the rest is drawn together as "Other".
Needs the tenant's door. Amounts stay integers; only the browser divides, to place a bar.
"""

import csv
import io
from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

from meterplane.kernel import amounts
from meterplane.kernel.invariant import ensure
from meterplane.kernel.money import nano_to_text
from meterplane.metering import labels
from meterplane.metering.queries import UsageSlice, usage_by, usage_by_day, usage_by_hour
from meterplane.portal.periods import Period
from tenants.queries import list_keys, organisation

Group = Literal["model", "key", "status", "surface", "service_tier", "deployment"]
Metric = Literal["spend", "requests", "tokens"]

GROUPS: dict[Group, str] = {
    "model": "Model",
    "key": "Key",
    "status": "Status",
    "surface": "Surface",
    "service_tier": "Tier",
    "deployment": "Deployment",
}
METRICS: dict[Metric, str] = {"spend": "Spend", "requests": "Requests", "tokens": "Tokens"}
SERIES_MAX = 6
OTHER_COLOUR = 7
CSV_HEADER = ["requests", "not_ok", "tokens_in", "tokens_out", "cost", "currency"]


@dataclass(frozen=True, slots=True)
class Sums:
    """Requests are counted by events: a request our crash interrupted is one too, though free."""

    requests: int
    errors: int
    tokens_in: int
    tokens_out: int
    cost_nano: int

    @property
    def tokens(self) -> int:
        return self.tokens_in + self.tokens_out


@dataclass(frozen=True, slots=True)
class Row:
    """One group. `colour` is its number in the chart, `share` its part of the spend."""

    split: str
    label: str
    colour: int
    share: str
    requests: int
    errors: int
    tokens_in: int
    tokens_out: int
    cost_nano: int


@dataclass(frozen=True, slots=True)
class Series:
    """What one colour of the chart stands for."""

    label: str
    colour: int


@dataclass(frozen=True, slots=True)
class UsageReport:
    """What the usage page shows of one period."""

    period: Period
    group: Group
    currency: str
    rows: tuple[Row, ...]
    totals: Sums
    decimals: int

    @property
    def group_label(self) -> str:
        return GROUPS[self.group]


def totals_of(slices: list[UsageSlice]) -> Sums:
    """The sums over all slices of one organisation, which is billed in one currency."""
    ensure(len({each.currency for each in slices}) <= 1, "an organisation has one currency")
    return Sums(
        requests=sum(each.events for each in slices),
        errors=sum(each.events - each.events_ok for each in slices),
        tokens_in=sum(each.tokens_in for each in slices),
        tokens_out=sum(each.tokens_out for each in slices),
        cost_nano=sum(each.cost_nano for each in slices),
    )


def usage_report(period: Period, group: Group) -> UsageReport:
    """Read one period, grouped; the costliest group first."""
    slices = usage_by(group, period.start, period.end)
    sums = totals_of(slices)
    names = key_labels() if group == "key" else labels.of_split(group)
    rows = tuple(
        Row(
            split=each.split,
            label=names.get(each.split, each.split),
            colour=min(number, OTHER_COLOUR),
            share=amounts.percent(each.cost_nano, sums.cost_nano),
            requests=each.events,
            errors=each.events - each.events_ok,
            tokens_in=each.tokens_in,
            tokens_out=each.tokens_out,
            cost_nano=each.cost_nano,
        )
        for number, each in enumerate(slices, start=1)
    )
    decimals = amounts.decimals_needed([row.cost_nano for row in rows], amounts.NANO_DIGITS)
    currency = slices[0].currency if slices else organisation().currency
    return UsageReport(period, group, currency, rows, sums, decimals)


def key_labels() -> dict[str, str]:
    """What a key id is shown as: its name and the end of its secret."""
    return {str(key.id): f"{key.name} …{key.last4}" for key in list_keys()}


def chart(report: UsageReport, metric: Metric) -> dict[str, object]:
    """Bars per bucket and group, as integers; `scale` decimals stand behind the point."""
    period = report.period
    read = usage_by_hour if period.bucket == "hour" else usage_by_day
    colours = {row.split: row.colour for row in report.rows}
    values: dict[int, dict[object, int]] = defaultdict(lambda: defaultdict(int))
    for bucket in read(period.start, period.end, report.group):
        quantity = {
            "spend": bucket.cost_nano,
            "requests": bucket.events,
            "tokens": bucket.tokens_in + bucket.tokens_out,
        }[metric]
        values[colours.get(bucket.split, OTHER_COLOUR)][bucket.at] += quantity
    buckets = period.buckets()
    return {
        "unit": "money" if metric == "spend" else "count",
        "currency": report.currency,
        "scale": amounts.NANO_DIGITS if metric == "spend" else 0,
        "labels": [period.label(at) for at in buckets],
        "series": [
            {
                "label": each.label,
                "colour": each.colour,
                "values": [values[each.colour][at] for at in buckets],
            }
            for each in legend(report)
        ],
    }


def legend(report: UsageReport) -> list[Series]:
    """The groups with a colour, and "Other" when there are more of them."""
    named = [Series(row.label, row.colour) for row in report.rows[:SERIES_MAX]]
    if len(report.rows) > SERIES_MAX:
        named.append(Series("Other", OTHER_COLOUR))
    return named


def as_csv(report: UsageReport) -> str:
    """The table, row by row and with its total, amounts exact."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([report.group, *CSV_HEADER])
    for row in report.rows:
        writer.writerow([literal(row.label), *_cells(row, report.currency)])
    writer.writerow(["Total", *_cells(report.totals, report.currency)])
    return text.getvalue()


def _cells(sums: Row | Sums, currency: str) -> list[object]:
    cost = nano_to_text(sums.cost_nano)
    return [sums.requests, sums.errors, sums.tokens_in, sums.tokens_out, cost, currency]


def literal(cell: str) -> str:
    """Text a spreadsheet must not run as a formula: people choose the names of their keys."""
    return f"'{cell}" if cell[:1] in {"=", "+", "-", "@", "\t", "\r"} else cell
