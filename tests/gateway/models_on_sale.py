"""More models than the samples, for one test: each as its catalog entry, priced and on sale."""

import hashlib
import json
from pathlib import Path
from typing import Any

from billing.pricing.catalog_prices import publish_catalog_prices
from meterplane.catalog.sync import sync_catalog
from meterplane.policy.compile import recompile_everyone
from tests.conftest import superuser
from tests.gateway.conftest import CATALOG

SAMPLES: dict[str, dict[str, Any]] = {
    entry["name"]: entry for entry in json.loads(CATALOG.read_text())["models"]
}
IN_PICO, OUT_PICO, REQUEST_PICO = 150_000, 600_000, 7_000_000


def text_model(name: str, adapter: str, **fields: Any) -> dict[str, Any]:
    """A model that writes text, at prices of which no two quantities cost the same by chance."""
    entry = {
        "name": name,
        "display_name": name,
        "upstream": name,
        "adapter": adapter,
        "context_tokens_max": 4096,
        "output_tokens_max": 1024,
        "output_tokens_default": 64,
        "prices": {"input_token": "0.00000015", "output_token": "0.0000006", "request": "0.000007"},
    }
    return entry | fields


def cost_nano(tokens_in: int, tokens_out: int, requests: int = 1) -> int:
    """What a `text_model` costs."""
    return (tokens_in * IN_PICO + tokens_out * OUT_PICO + requests * REQUEST_PICO) // 1000


def put_on_sale(folder: Path, *entries: dict[str, Any]) -> None:
    """Beside the samples, to everybody who is there already, too."""
    _publish(folder, _catalog(entries))
    recompile_everyone()


def sell(folder: Path, *entries: dict[str, Any]) -> None:
    """Beside the samples, before anybody is there: made once in a process, put back after that."""
    catalog = _catalog(entries)
    kept = f"selling_{hashlib.sha256(catalog.encode()).hexdigest()[:8]}"
    if not superuser().restore(kept):
        _publish(folder, catalog)
        superuser().keep(kept)


def _publish(folder: Path, catalog: str) -> None:
    path = folder / "catalog.json"
    path.write_text(catalog)
    sync_catalog(path)
    publish_catalog_prices(path)


def _catalog(entries: tuple[dict[str, Any], ...]) -> str:
    return json.dumps({"models": list((SAMPLES | _by_name(entries)).values())})


def _by_name(entries: tuple[dict[str, Any], ...]) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in entries}
