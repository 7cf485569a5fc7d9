"""Options that usage and requests have in common, as the query string has them."""

from typing import Annotated

import typer

from meterplane.cli.connection import Params
from meterplane.cli.say import fail

From = Annotated[
    str, typer.Option("--from", help="A day (2026-11-03) or an instant.", show_default=False)
]
To = Annotated[str, typer.Option("--to", help="The end, not included.", show_default=False)]
Last = Annotated[str, typer.Option("--last", help="Instead: 12h, 30d, 8w.", show_default=False)]
Model = Annotated[list[str] | None, typer.Option("--model", help="Only this model; repeatable.")]
Status = Annotated[
    list[str] | None, typer.Option("--status", help="ok, error, cancelled or interrupted.")
]
Surface = Annotated[list[str] | None, typer.Option("--surface", help="openai.chat, kserve.infer …")]
KeyId = Annotated[list[str] | None, typer.Option("--key", help="Only this API key's id.")]
Tag = Annotated[list[str] | None, typer.Option("--tag", help="name=value; repeatable.")]
Zone = Annotated[
    str,
    typer.Option("--tz", help="The zone of days, e.g. Europe/Berlin.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="The answer as it came, JSON.")]


def single(**values: str) -> Params:
    """Those that were given, under their own names; `from_` is `from`."""
    return [(name.rstrip("_"), value) for name, value in values.items() if value]


def repeated(
    model: list[str] | None,
    status: list[str] | None,
    surface: list[str] | None,
    key: list[str] | None,
    tag: list[str] | None,
) -> Params:
    """Filters, any number of each. Ends the command for a tag without a value."""
    named = {"model": model, "status": status, "surface": surface, "key": key}
    found = [(name, value) for name, values in named.items() for value in values or ()]
    for text in tag or ():
        name, equals, value = text.partition("=")
        if not name or not equals:
            fail(f"--tag {text!r}: write name=value.")
        found.append((f"tag:{name}", value))
    return found
