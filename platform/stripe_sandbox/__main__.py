"""`python -m stripe_sandbox`: bind loopback, open the data file, serve until told to stop.

Prints one line with the address once the port is taken, so port 0 can be used. Anything but a
loopback address is refused before a socket exists.
"""

import argparse
import logging
import socket
import sqlite3
import sys
from pathlib import Path

import uvicorn

import stripe_sandbox
from stripe_sandbox import control, faults, settings
from stripe_sandbox.app import Settings, create_app
from stripe_sandbox.cards import TEST_CARDS
from stripe_sandbox.store import Ledger
from stripe_sandbox.webhook_endpoints import is_loopback

DRAIN_S = 3


def main(arguments: list[str] | None = None) -> int:
    """Run the server; the exit status."""
    options = _parse(arguments)
    if not is_loopback(options.host):
        sys.stderr.write(
            f"refusing to bind {options.host}: the Stripe sandbox listens on loopback only\n"
        )
        return 2
    if options.key is not None and not options.key.startswith(("sk_test_", "rk_test_")):
        sys.stderr.write("refusing --key: the Stripe sandbox takes sk_test_ and rk_test_ keys\n")
        return 2
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        ledger = Ledger(options.data)
    except (OSError, sqlite3.Error) as failed:
        sys.stderr.write(f"cannot open {options.data} ({failed}): is a sandbox running on it?\n")
        return 1
    with _bound(options.host, options.port) as listener:
        port = listener.getsockname()[1]
        shown = f"[{options.host}]" if ":" in options.host else options.host
        run_with = Settings(
            base_url=f"http://{shown}:{port}",
            key=options.key,
            retry_ms=int(options.webhook_retry_seconds * 1000),
        )
        config = uvicorn.Config(
            faults.exposed(create_app(run_with, ledger)),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=DRAIN_S,
        )
        server = uvicorn.Server(config)
        sys.stdout.write(f"Stripe sandbox (no money moves) on {run_with.base_url}\n")
        sys.stdout.flush()
        server.run(sockets=[listener])
    return 0 if server.started else 1


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m stripe_sandbox",
        description=stripe_sandbox.__doc__,
        epilog="\n".join(
            (control.__doc__ or "", settings.__doc__ or "", faults.__doc__ or "", _cards())
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address")
    parser.add_argument("--port", type=int, default=8703, help="0 takes a free one")
    parser.add_argument("--data", type=Path, required=True, help="the SQLite file of all state")
    parser.add_argument("--key", help="the only key to accept; any sk_test_ key otherwise")
    parser.add_argument(
        "--webhook-retry-seconds",
        type=float,
        default=1.0,
        help="wait before the first webhook retry; doubles from there",
    )
    return parser.parse_args(arguments)


def _cards() -> str:
    """The test cards, by number and magic id."""
    rows = (f"    {card.number:<18}{', '.join(card.magic_ids)}" for card in TEST_CARDS)
    return "\n".join(("Test cards, and payment methods that stand for fresh ones.", "", *rows))


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener


if __name__ == "__main__":
    sys.exit(main())
