"""`meterplane requests`: single requests, newest first, and everything about one."""

from typing import Annotated, Any

import msgspec
import typer

from meterplane.cli import filters, say
from meterplane.cli.connection import Connection, Key, Params, Url

PAGE_MAX = 100
COLUMNS = ("at", "id", "model", "status", "tokens_in", "tokens_out", "total_ms", "cost", "currency")

app = typer.Typer(no_args_is_help=True, help="Single requests of the key's project.")


@app.command("list")
def list_requests(
    url: Url = "",
    api_key: Key = "",
    from_: filters.From = "",
    to: filters.To = "",
    last: filters.Last = "",
    tz: filters.Zone = "",
    model: filters.Model = None,
    status: filters.Status = None,
    surface: filters.Surface = None,
    key: filters.KeyId = None,
    tag: filters.Tag = None,
    after: Annotated[
        str, typer.Option(help="The last id of the page before.", show_default=False)
    ] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Requests at most.")] = 20,
    as_json: filters.AsJson = False,
) -> None:
    """Requests, newest first, of any time unless a period is given."""
    params = [
        *filters.single(from_=from_, to=to, last=last, tz=tz),
        *filters.repeated(model, status, surface, key, tag),
    ]
    with Connection(url, api_key) as connection:
        found, more = _pages(connection, params, after, limit)
    if as_json:
        say.raw(msgspec.json.encode({"data": found, "has_more": more}) + b"\n")
        return
    numbers = ("tokens_in", "tokens_out", "total_ms", "cost")
    say.table(COLUMNS, [[row[name] for name in COLUMNS] for row in found], numbers)
    if more:
        say.err.print(f"There are more; go on with --after {say.shown(found[-1]['id'])}")


@app.command("show")
def show_request(
    request_id: Annotated[str, typer.Argument(help="Its x-request-id.")],
    url: Url = "",
    api_key: Key = "",
    as_json: filters.AsJson = False,
) -> None:
    """One request: its timeline, its counts, its cost and the prices it was admitted under."""
    path = f"/v1/requests/{path_part(request_id)}"
    with Connection(url, api_key) as connection:
        told = connection.get(path)
    if as_json:
        say.raw(msgspec.json.encode(told) + b"\n")
        return
    say.table(("", ""), _facts(told), ())


def path_part(text: str) -> str:
    """An id as part of a path. Ends the command for what is none."""
    if not text or len(text) > 64 or not text.isascii() or not text.replace("-", "").isalnum():
        say.fail(f"{text[:80]!r} is no request id; it is the answer's x-request-id.")
    return text


def _pages(
    connection: Connection, params: Params, after: str, limit: int
) -> tuple[list[dict[str, Any]], bool]:
    """Requests of as many pages as `limit` takes, and whether there are more."""
    found: list[dict[str, Any]] = []
    while True:
        wanted = min(PAGE_MAX, limit - len(found))
        cursor = [("after", after)] if after else []
        page = connection.get("/v1/requests", [*params, *cursor, ("limit", str(wanted))])
        found += page["data"]
        after = page["last_id"] or ""
        if len(found) >= limit or not page["has_more"]:
            return found, bool(page["has_more"])


def _facts(told: dict[str, Any]) -> list[tuple[str, object]]:
    """Everything that is told, a line each; what is inside of something under its name."""
    facts: list[tuple[str, object]] = []
    for name, value in told.items():
        if isinstance(value, dict):
            facts += [(f"{name}.{inner}", each) for inner, each in value.items()]
        else:
            facts.append((name, value))
    return [(name, value) for name, value in facts if value not in (None, "")]
