"""What the control door can change about this sandbox, kept with its state on disk.

    numbering           "customer" (a sequence each) or "account" (one for all invoices)
    rate_limit          whether more than 25 calls a second of one endpoint are answered 429
    search_lag_s        how late search is
    webhook_delay_ms    how long every webhook waits before its first attempt
    webhook_drop        how many of the next webhooks are lost on the way
    webhook_duplicates  how many times more each webhook is delivered
    webhook_hold        whether webhooks wait until they are released, in an order of one's choice

Each is a JSON value of the same kind as its default.
"""

import json
from typing import Any

from stripe_sandbox.store import Store

DEFAULTS: dict[str, Any] = {
    "clock_offset_s": 0,
    "numbering": "customer",
    "rate_limit": False,
    "search_lag_s": 60,
    "webhook_delay_ms": 0,
    "webhook_drop": 0,
    "webhook_duplicates": 0,
    "webhook_hold": False,
}


def read(store: Store, name: str) -> Any:
    """The value set, or the default."""
    row = store.connection.execute("SELECT value FROM setting WHERE name = ?", (name,)).fetchone()
    return DEFAULTS[name] if row is None else json.loads(row[0])


def write(store: Store, name: str, value: Any) -> None:
    """Set a value; the name must be one of `DEFAULTS`."""
    if name not in DEFAULTS:
        raise KeyError(name)
    store.connection.execute(
        "INSERT OR REPLACE INTO setting VALUES (?, ?)", (name, json.dumps(value))
    )


def read_all(store: Store) -> dict[str, Any]:
    """Every setting."""
    return {name: read(store, name) for name in DEFAULTS}
