"""`meterplane receipt`: fetch one, and verify one, with nothing but the public key if need be."""

import sys
import time
from pathlib import Path
from typing import Annotated, Any, NoReturn

import httpx
import msgspec
import typer
from rich.text import Text

from meterplane.cli import say
from meterplane.cli.connection import (
    Connection,
    Key,
    Url,
    checked,
    client,
    problem,
    reached_of,
    unreachable,
)
from meterplane.cli.requests import path_part
from meterplane.contracts.receipt import (
    DOCUMENT_BYTES_MAX,
    ReceiptInvalid,
    charge_explained,
    verified,
)

WELL_KNOWN = "/.well-known/jwks.json"
WAIT_S = 15.0  # usage shows within seconds of an answer

app = typer.Typer(no_args_is_help=True, help="Signed receipts of single requests.")


@app.command("get")
def get_receipt(
    request_id: Annotated[str, typer.Argument(help="The request's x-request-id.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to; else stdout.")
    ] = None,
    url: Url = "",
    api_key: Key = "",
) -> None:
    """Fetch the receipt of a request; of one that was just answered, as soon as it is there."""
    path = f"/v1/receipts/{path_part(request_id)}"
    until = time.monotonic() + WAIT_S
    with Connection(url, api_key) as connection:
        reached = connection.ask("GET", path)
        while (
            reached.status == 404 and "retry-after" in reached.headers and time.monotonic() < until
        ):
            time.sleep(1)
            reached = connection.ask("GET", path)
    if reached.status != 200:
        say.fail(problem(reached))
    if output is None:
        say.raw(reached.content + b"\n")
        return
    try:
        output.write_bytes(reached.content)
    except OSError as refused:
        say.fail(f"{output} cannot be written: {refused.strerror}.")
    say.err.print(Text(f"Wrote {output}."), soft_wrap=True)


@app.command("verify")
def verify_receipt(
    file: Annotated[str, typer.Argument(help="The receipt, or its JWS alone; - for stdin.")],
    jwks: Annotated[
        str,
        typer.Option(
            help="The public keys: a file, or an address. Else those of METERPLANE_URL.",
            show_default=False,
        ),
    ] = "",
    url: Url = "",
) -> None:
    """Whether a receipt is what was signed: VALID and 0, or INVALID and 1. Needs no API key."""
    document = _read(file)
    keys, listed_at = _keys(jwks, url)
    try:
        claims = verified(document, keys)
        explained = charge_explained(claims)
    except ReceiptInvalid as wrong:
        _invalid(f"It proves nothing: {wrong} (keys of {listed_at}).")
    except (KeyError, TypeError, ValueError):
        _invalid("It was signed, but not as a receipt that this version of the command knows.")
    if explained is False:
        _invalid("It was signed, but its quantities times its unit prices are not its charge.")
    say.out.print("[bold green]VALID[/]")
    say.out.print(Text(_proves(claims, listed_at, explained=explained)), soft_wrap=True)


def _invalid(why: str) -> NoReturn:
    say.out.print("[bold red]INVALID[/]")
    say.out.print(Text(say.shown(why)), soft_wrap=True)
    raise typer.Exit(say.NO)


def _proves(claims: dict[str, Any], listed_at: str, *, explained: bool | None) -> str:
    charge = claims["charge"]
    how = (
        "Quantities times the unit prices in it are that charge, or the reservation where they"
        " were more."
        if explained
        else "It tells no unit prices."
    )
    return say.shown(
        f"Whoever holds the private key (public half listed at {listed_at}) states: request"
        f" {claims['request_id']} of organisation {claims['organisation_id']} to {claims['model']}"
        f" ended {claims['settled_at']} as {claims['status']}, with {claims['tokens_in']} tokens in"
        f" and {claims['tokens_out']} out (counted by: {claims['provenance']}), and was charged"
        f" {charge['amount']} {charge['currency']}. {how} Not a character of it was changed since."
        " It does not prove that an invoice was issued or paid, nor what the answer was."
    )


def _read(file: str) -> bytes:
    try:
        if file == "-":
            return sys.stdin.buffer.read(DOCUMENT_BYTES_MAX + 1)
        with Path(file).open("rb") as content:
            return content.read(DOCUMENT_BYTES_MAX + 1)
    except OSError as refused:
        say.fail(f"{file} cannot be read: {refused.strerror}.")


def _keys(jwks: str, url: str) -> tuple[dict[str, Any], str]:
    """The key set, and where it is from."""
    if jwks and not jwks.startswith(("http://", "https://")):
        content, listed_at = _read(jwks), jwks
    else:
        listed_at = checked(jwks) if jwks else checked(url) + WELL_KNOWN
        content = _fetched(listed_at)
    try:
        keys = msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        keys = {}
    if not isinstance(keys.get("keys"), list):
        say.fail(f"{listed_at} holds no key set (JWKS).")
    return keys, listed_at


def _fetched(address: str) -> bytes:
    try:
        with client({}) as asking:
            reached = reached_of(asking.get(address))
    except httpx.HTTPError as away:
        unreachable(address, away)
    if reached.status != 200:
        say.fail(problem(reached))
    return reached.content
