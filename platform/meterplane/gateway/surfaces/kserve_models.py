"""What `/v2` tells of the server and of models, without anything of the servers behind it.

A model's metadata is its server's, under the name it is sold by, with the tensors the catalog lets
callers use. Where the catalog pins versions there are no others: one that was withdrawn from sale
may still be loaded. Which servers there are, how they are configured and what others did on them is
not told: the control and statistics routes of Triton do not exist, except that `stats` says why.
"""

from typing import Any

import msgspec

from meterplane.contracts.policy import ModelPolicy
from meterplane.contracts.serving import ModelServing, Target
from meterplane.kernel.errors import CallerError, WorldError

SERVER = msgspec.json.encode(
    {
        "name": "meterplane",
        "version": "2",
        "extensions": ["binary_tensor_data", "classification", "generate", "parameters"],
    }
)

NOT_READY = b'{"error":"Model version not ready"}'  # Triton's words

_decoder = msgspec.json.Decoder(dict[str, Any])


def versions_of(serving: ModelServing) -> list[str]:
    """The versions that are offered; empty: any that a server has."""
    versions = {target.version for target in serving.targets}
    return [] if "" in versions else sorted(versions, key=int)


def check_version(serving: ModelServing, version: str, asked: str = "") -> None:
    """Refuse a version that is not offered. Raises `CallerError` 404, in Triton's words.

    `asked` is the model that the version was named of: a fallback's versions are other models.
    """
    if not version:
        return
    offered = versions_of(serving)
    if (offered and version not in offered) or (asked and asked != serving.name):
        raise version_not_found(serving.name, version)


def version_not_found(model: str, version: str) -> CallerError:
    """The version a path names is not there."""
    return CallerError(
        "model_version_not_found",
        f"Request for unknown model: '{model}' version {version} is not found",
        status=404,
    )


def target_with(version: str, chosen: Target, serving: ModelServing) -> Target:
    """The target to ask for a version: the chosen one, unless it pins another."""
    if not version or chosen.version in ("", version):
        return chosen
    fit = [target for target in serving.targets if target.version in ("", version)]
    return fit[0] if fit else chosen


def metadata(model: ModelPolicy, serving: ModelServing, content: bytes) -> bytes:
    """A model's metadata as the server tells it, made ours. Raises `WorldError` 502."""
    try:
        document = _decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise WorldError(
            "upstream_broken", "the server's metadata could not be read", status=502
        ) from None
    document["name"] = model.name
    if offered := versions_of(serving):
        document["versions"] = [v for v in document.get("versions", []) if v in offered]
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
