"""One period of usage, grouped: figures, chart, table and CSV of the same rows.

The table is the truth: the CSV holds exactly its rows, and the chart draws them per bucket. The
costliest `SERIES_MAX` groups have colours of their own, the rest is drawn together as "Other".
Needs the tenant's door. Amounts stay integers; only the browser divides, to place a bar.
"""

import csv
import io
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime

from meterplane.kernel import amounts
from meterplane.kernel.invariant import ensure
from meterplane.kernel.money import nano_to_text
from meterplane.metering import labels
from meterplane.metering.usage_query import TAG, Filters, UsageQuery
from meterplane.metering.usage_table import UsageRow, run
from meterplane.metering.usage_written import literal
from meterplane.portal.periods import Period
from meterplane.portal.usage_state import Metric, dimension_label
from tenants.queries import list_keys, list_projects, organisation

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
    group: str
    filters: Filters
    currency: str
    rows: tuple[Row, ...]
    totals: Sums
    decimals: int
    truncated: bool

    @property
    def group_label(self) -> str:
        return dimension_label(self.group)


def totals_of(start: datetime, end: datetime, filters: Filters | None = None) -> Sums:
    """The sums over a period of one organisation, which is billed in one currency."""
    return _sums(run(UsageQuery(start, end, filters=filters or {})).totals)


def usage_report(period: Period, group: str, filters: Filters | None = None) -> UsageReport:
    """Read one period, grouped; the costliest group first."""
    filters = filters or {}
    table = run(UsageQuery(period.start, period.end, group_by=(group,), filters=filters))
    sums = _sums(table.totals)
    names = names_of(group)
    rows = tuple(
        Row(
            split=each.groups[0],
            label=names.get(each.groups[0], each.groups[0]),
            colour=min(number, OTHER_COLOUR),
            share=amounts.percent(each.cost_nano, sums.cost_nano),
            requests=each.events,
            errors=each.events - each.events_ok,
            tokens_in=each.tokens_in,
            tokens_out=each.tokens_out,
            cost_nano=each.cost_nano,
        )
        for number, each in enumerate(table.rows, start=1)
    )
    decimals = amounts.decimals_needed([row.cost_nano for row in rows], amounts.NANO_DIGITS)
    currency = table.rows[0].currency if table.rows else organisation().currency
    return UsageReport(period, group, filters, currency, rows, sums, decimals, table.truncated)


def names_of(dimension: str) -> dict[str, str]:
    """What the values of a dimension are shown as, where it is not as they are."""
    if dimension.startswith(TAG):
        return {"": f"without {dimension.removeprefix(TAG)}"}
    if dimension == "key":
        return key_labels()
    if dimension == "project":
        return {str(project.id): project.name for project in list_projects()}
    return labels.of_split(dimension)


def key_labels() -> dict[str, str]:
    """What a key id is shown as: its name and the end of its secret."""
    return {str(key.id): f"{key.name} …{key.last4}" for key in list_keys()}


def chart(report: UsageReport, metric: Metric) -> dict[str, object]:
    """Bars per bucket and group, as integers; `scale` decimals stand behind the point."""
    period = report.period
    colours = {row.split: row.colour for row in report.rows}
    values: dict[int, dict[object, int]] = defaultdict(lambda: defaultdict(int))
    for row in run(bucketed(report)).rows:
        quantity = {
            "spend": row.cost_nano,
            "requests": row.events,
            "tokens": row.tokens_in + row.tokens_out,
        }[metric]
        values[colours.get(row.groups[0], OTHER_COLOUR)][row.at] += quantity
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


def bucketed(report: UsageReport) -> UsageQuery:
    """What the chart draws: the report's groups in each bucket of its period."""
    period = report.period
    return UsageQuery(
        period.start,
        period.end,
        bucket=period.bucket,
        zone=period.zone,
        group_by=(report.group,),
        filters=report.filters,
    )


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
    writer.writerow([literal(report.group), *CSV_HEADER])
    for row in report.rows:
        writer.writerow([literal(row.label), *_cells(row, report.currency)])
    writer.writerow(["Total", *_cells(report.totals, report.currency)])
    return text.getvalue()


def _cells(sums: Row | Sums, currency: str) -> list[object]:
    cost = nano_to_text(sums.cost_nano)
    return [sums.requests, sums.errors, sums.tokens_in, sums.tokens_out, cost, currency]


def _sums(totals: tuple[UsageRow, ...]) -> Sums:
    ensure(len(totals) <= 1, "an organisation has one currency")
    return Sums(
        requests=sum(each.events for each in totals),
        errors=sum(each.events - each.events_ok for each in totals),
        tokens_in=sum(each.tokens_in for each in totals),
        tokens_out=sum(each.tokens_out for each in totals),
        cost_nano=sum(each.cost_nano for each in totals),
    )
