"""One model as the catalog states it: the same value from a catalog file, a form or a row.

Guarantees types, and that no field is unknown; what the values mean is checked in `check.py`.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

from meterplane.catalog.fault import Fault
from meterplane.catalog.models import Model
from meterplane.contracts.policy import Adapter


class TargetEntry(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """One deployment, as `contracts.serving.Target`; an empty `upstream` is the model's own."""

    name: str = "default"
    upstream: str = ""
    weight: int = 1
    servers: list[str] = []
    grpc_servers: list[str] = []
    version: str = ""
    region: str = ""
    gpu_type: str = ""


class CatalogEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model. No `targets`: one, under `upstream`, on the gateway's own servers.

    The fields from `targets` on mean what they mean in `contracts.serving.ModelServing`. `prices`
    are decimal strings per unit, read by billing.
    """

    name: str
    display_name: str
    upstream: str
    adapter: Adapter
    context_tokens_max: int
    output_tokens_max: int
    output_tokens_default: int
    reserve: Literal["bound", "history"] = "bound"
    description: str = ""
    is_demo: bool = False
    is_active: bool = True
    targets: list[TargetEntry] = []
    fallbacks: list[str] = []
    chat_template: str = ""
    tokenizer: str = ""
    parameters: list[str] = []
    inputs: list[str] = []
    outputs: list[str] = []
    bill_errors: bool = False
    continuous_usage: bool = False
    secret_env: str = ""
    first_byte_timeout_s: float = 0
    idle_timeout_s: float = 0
    duration_s_max: float = 0
    in_flight_max: int = 0
    queue_max: int = 512
    queue_s_max: float = 10
    priority_levels: int = 0
    prices: dict[str, str] = {}

    def fault(self, field: str, problem: str) -> Fault:
        """Something wrong with a field of this model."""
        return Fault(self.name, field, problem)


STORED = tuple(name for name in CatalogEntry.__struct_fields__ if name != "prices")


def entry_of(model: Model) -> CatalogEntry:
    """A row as a value."""
    return msgspec.convert({name: getattr(model, name) for name in STORED}, CatalogEntry)


def columns(entry: CatalogEntry) -> Mapping[str, object]:
    """A value as what its row holds, by field."""
    document = msgspec.to_builtins(entry)
    return {name: document[name] for name in STORED}
