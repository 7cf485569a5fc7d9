"""What the coded values of an event are called where people read them.

An unknown code is shown as it is: an event that a newer gateway wrote must not break a page.
"""

from meterplane.contracts.usage import Priority, Provenance, ServiceTier, Surface

SURFACES: dict[Surface, str] = {
    "openai.chat": "Chat completions",
    "openai.completions": "Completions",
    "openai.embeddings": "Embeddings",
    "kserve.infer": "KServe infer",
    "kserve.generate": "KServe generate",
    "grpc.infer": "gRPC infer",
    "grpc.stream_infer": "gRPC stream",
}
TIERS: dict[ServiceTier, str] = {"standard": "Standard", "batch": "Batch"}
PRIORITIES: dict[Priority, str] = {"high": "High", "normal": "Normal", "low": "Low"}
NOT_SAID = {"": "Not said"}  # of a target that the catalog does not place
PROVENANCES: dict[Provenance, str] = {
    "engine": "the engine's own report",
    "tokenizer": "the model's tokenizer",
    "estimate": "an estimate, one token a chunk",
    "units": "units counted at the gateway",
    "checkpoint": "the last checkpoint before a crash",
}


_BY_CODE: dict[str, dict[str, str]] = {
    "surface": dict(SURFACES.items()),
    "service_tier": dict(TIERS.items()),
    "priority": dict(PRIORITIES.items()),
    "region": NOT_SAID,
    "gpu_type": NOT_SAID,
    "provenance": dict(PROVENANCES.items()),
}


def surface(code: str) -> str:
    """`Chat completions` for `openai.chat`."""
    return _BY_CODE["surface"].get(code, code)


def tier(code: str) -> str:
    """`Batch` for `batch`."""
    return _BY_CODE["service_tier"].get(code, code)


def priority(code: str) -> str:
    """`High` for `high`."""
    return _BY_CODE["priority"].get(code, code)


def provenance(code: str) -> str:
    """Where an event's counts came from, to follow "Counts come from"."""
    return _BY_CODE["provenance"].get(code, code)


def of_split(split: str) -> dict[str, str]:
    """Names by code for a split of usage whose codes have some; empty for any other."""
    return _BY_CODE.get(split, {})
