"""`meterplane usage`: sums by time and by what usage is told apart by."""

from typing import Annotated, Any

import typer

from meterplane.cli import filters, say
from meterplane.cli.connection import Connection, Key, Url, problem

COUNTS = ("events", "events_ok", "requests", "tokens_in", "tokens_out")


def usage(
    url: Url = "",
    api_key: Key = "",
    group_by: Annotated[
        list[str] | None,
        typer.Option("--group-by", "-g", help="model, key, status, tag:<name> …; at most 3."),
    ] = None,
    bucket: Annotated[
        str, typer.Option(help="minute, hour, day or month.", show_default=False)
    ] = "",
    tz: filters.Zone = "",
    from_: filters.From = "",
    to: filters.To = "",
    last: filters.Last = "",
    model: filters.Model = None,
    status: filters.Status = None,
    surface: filters.Surface = None,
    key: filters.KeyId = None,
    tag: filters.Tag = None,
    order: Annotated[
        str, typer.Option(help="time, cost, events, tokens or name.", show_default=False)
    ] = "",
    limit: Annotated[int | None, typer.Option(help="Rows at most.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV on stdout.")] = False,
    as_json: filters.AsJson = False,
) -> None:
    """Usage of the key's project: the month so far, unless a period is given."""
    if as_csv and as_json:
        say.fail("Choose one of --csv and --json.")
    params = [
        *filters.single(
            bucket=bucket, tz=tz, from_=from_, to=to, last=last, order=order,
            limit="" if limit is None else str(limit),
        ),
        *[("group_by", name) for name in group_by or ()],
        *filters.repeated(model, status, surface, key, tag),
    ]  # fmt: skip
    with Connection(url, api_key) as connection:
        reached = connection.ask("GET", "/v1/usage", params)
    if reached.status != 200 or not isinstance(reached.json, dict):
        say.fail(problem(reached))
    if as_json:
        say.raw(reached.content.rstrip() + b"\n")
        return
    _show(reached.json, as_csv)


def _show(told: dict[str, Any], as_csv: bool) -> None:
    groups = [str(name) for name in told["group_by"]]
    at = ["at"] if told["bucket"] else []
    names = [*at, *groups, "currency", *COUNTS, "cost", "mean_ms"]
    rows = [_cells(row, at, groups) for row in told["data"]]
    if as_csv:
        say.comma_separated(names, rows)
    else:
        if at or groups:
            totals = [_cells(row, at, groups) for row in told["totals"]]
            rows += [["total", *total[1:]] for total in totals]
        say.table(names, rows, (*COUNTS, "cost", "mean_ms"))
    if told["truncated"]:
        say.err.print("There are more rows than these; totals are of all of them.")


def _cells(row: dict[str, Any], at: list[str], groups: list[str]) -> list[Any]:
    return [
        *(row.get(name, "") for name in at),
        *(row["groups"].get(name, "") for name in groups),
        *(row[name] for name in ("currency", *COUNTS, "cost", "mean_ms")),
    ]
