"""The command's entry: `meterplane usage | requests | receipt | events`."""

import typer

from meterplane.cli import events, receipt, requests
from meterplane.cli.usage import usage

app = typer.Typer(
    name="meterplane",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Usage, requests and signed receipts of an API key's project, and usage told from outside."
    " METERPLANE_URL and METERPLANE_API_KEY say where, and whose.",
)
app.command("usage")(usage)
app.add_typer(requests.app, name="requests")
app.add_typer(receipt.app, name="receipt")
app.add_typer(events.app, name="events")
