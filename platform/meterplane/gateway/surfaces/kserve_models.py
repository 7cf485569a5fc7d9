"""What `/v2` tells of the server and of models, without anything of the servers behind it.

A model's metadata is its server's, under the name it is sold by, with the tensors the catalog lets
callers use. Which servers there are, how they are configured and what others did on them is not
told: the control and statistics routes of Triton do not exist, except that `stats` says why.
"""

from typing import Any

import msgspec

from meterplane.contracts.policy import ModelPolicy
from meterplane.contracts.serving import ModelServing
from meterplane.kernel.errors import CallerError, WorldError

SERVER = msgspec.json.encode(
    {
        "name": "meterplane",
        "version": "2",
        "extensions": ["binary_tensor_data", "classification", "generate", "parameters"],
    }
)

_decoder = msgspec.json.Decoder(dict[str, Any])


def metadata(model: ModelPolicy, serving: ModelServing, content: bytes) -> bytes:
    """A model's metadata as the server tells it, made ours. Raises `WorldError` 502."""
    try:
        document = _decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise WorldError(
            "upstream_broken", "the server's metadata could not be read", status=502
        ) from None
    document["name"] = model.name
    for kind, allowed in (("inputs", serving.inputs), ("outputs", serving.outputs)):
        if allowed:
            document[kind] = [
                each for each in document.get(kind, []) if each.get("name") in allowed
            ]
    return msgspec.json.encode(document)


def described(model: ModelPolicy) -> bytes:
    """Metadata of a model that no v2 server holds."""
    return msgspec.json.encode(
        {"name": model.name, "versions": [], "platform": "openai", "inputs": [], "outputs": []}
    )


def statistics_refused() -> CallerError:
    """Triton's counters are of all tenants together."""
    return CallerError(
        "statistics_are_per_tenant",
        "server statistics count all tenants; your own are in the portal under Usage",
        status=403,
    )
