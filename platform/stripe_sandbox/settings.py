"""What the control door can change about this sandbox, kept with its state on disk."""

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
    "webhook_shuffle": False,
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
