"""Entries for the catalog's tests."""

import msgspec

from meterplane.catalog.entry import CatalogEntry


def entry(name: str = "mine", **fields: object) -> CatalogEntry:
    """A text model on Triton without a fault, but for what `fields` say."""
    sound = {
        "name": name,
        "display_name": name.title(),
        "upstream": name,
        "adapter": "vllm",
        "context_tokens_max": 4096,
        "output_tokens_max": 1024,
        "output_tokens_default": 256,
    }
    return msgspec.convert(sound | fields, CatalogEntry)
