"""What is told of the server and of models: not admitted, not billed, fresh to the second.

A model is told under the name it is sold by, with the versions and tensors that the catalog offers.
"""

from collections.abc import Awaitable, Callable

import msgspec

from meterplane.contracts.policy import KeyPolicy, ModelPolicy
from meterplane.contracts.serving import ModelServing, Target
from meterplane.gateway import errors
from meterplane.gateway.kserve_grpc.infer_work import check_version
from meterplane.gateway.kserve_grpc.messages import (
    Message,
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
    ModelReadyResponse,
    ServerLiveResponse,
    ServerMetadataResponse,
    ServerReadyRequest,
    ServerReadyResponse,
    read,
)
from meterplane.gateway.kserve_grpc.servers import GrpcServers, Waits
from meterplane.gateway.model_routes import serving_of
from meterplane.gateway.pipeline import Parts
from meterplane.gateway.surfaces import kserve_models
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.triton.failures import TritonBroken
from meterplane.triton.health import READY_TIMEOUT_S

_WAITS = Waits(READY_TIMEOUT_S, READY_TIMEOUT_S)

# What anybody is told, and what a key's policy and message are needed for.
TellAnybody = Callable[[], Awaitable[Message]]
Tell = Callable[[bytes, KeyPolicy], Awaitable[Message]]


class About:
    """Answers from one worker."""

    def __init__(self, parts: Parts, servers: GrpcServers) -> None:
        self._parts = parts
        self._servers = servers

    async def server_live(self) -> Message:
        """This process runs."""
        return ServerLiveResponse(live=True)

    async def server_ready(self) -> Message:
        """One of the gateway's own servers says that it is. Anybody may ask: it is shared."""
        found = await self._parts.readiness.servers.found(self._servers_ready)
        return ServerReadyResponse(ready=found)

    async def _servers_ready(self) -> bool:
        request = ServerReadyRequest().SerializeToString()
        try:
            answer = await self._ask("ServerReady", request, [])
            return bool(_read(ServerReadyResponse, answer).ready)
        except (CallerError, WorldError):
            return False

    async def server_metadata(self) -> Message:
        """Us: the servers behind are nobody's matter."""
        return ServerMetadataResponse(**msgspec.json.decode(kserve_models.SERVER))

    async def model_ready(self, content: bytes, policy: KeyPolicy) -> Message:
        """True when one of the model's deployments says so. Raises `CallerError` 404."""
        asked = read(ModelReadyRequest, content)
        model = _named(asked, policy)
        if model.adapter == "openai":
            return ModelReadyResponse(ready=True)
        serving = await serving_of(model, self._parts)
        for target in _targets(serving, asked.version):
            request = ModelReadyRequest(
                name=target.upstream, version=asked.version or target.version
            )
            try:
                answer = await self._ask(
                    "ModelReady", request.SerializeToString(), target.grpc_servers
                )
            except (CallerError, WorldError):
                continue
            if _read(ModelReadyResponse, answer).ready:
                return ModelReadyResponse(ready=True)
        return ModelReadyResponse(ready=False)

    async def model_metadata(self, content: bytes, policy: KeyPolicy) -> Message:
        """A model's tensors, from the first deployment that can be reached."""
        asked = read(ModelMetadataRequest, content)
        model = _named(asked, policy)
        if model.adapter == "openai":
            return ModelMetadataResponse(**msgspec.json.decode(kserve_models.described(model)))
        serving = await serving_of(model, self._parts)
        kserve_models.check_version(serving, asked.version)
        failure: CallerError | WorldError | None = None
        for target in _targets(serving, asked.version):
            request = ModelMetadataRequest(
                name=target.upstream, version=asked.version or target.version
            )
            try:
                answer = await self._ask(
                    "ModelMetadata", request.SerializeToString(), target.grpc_servers
                )
            except (CallerError, WorldError) as problem:
                failure = problem
                continue
            return _metadata(model, serving, _read(ModelMetadataResponse, answer))
        if asked.version and isinstance(failure, CallerError) and failure.status == 404:
            raise kserve_models.version_not_found(model.name, asked.version)
        raise failure or errors.serving_unknown(model.name)

    async def _ask(self, method: str, content: bytes, addresses: list[str]) -> bytes:
        async with self._servers.lend(addresses) as lent:
            return await lent.server.unary(method, content, (), _WAITS)


def _metadata(model: ModelPolicy, serving: ModelServing, told: Message) -> Message:
    """As the server tells it, made ours."""
    told.name = model.name
    offered = kserve_models.versions_of(serving)
    if offered:
        told.versions[:] = [each for each in told.versions if each in offered]
    for tensors, allowed in ((told.inputs, serving.inputs), (told.outputs, serving.outputs)):
        for index in range(len(tensors) - 1, -1, -1):
            if allowed and tensors[index].name not in allowed:
                del tensors[index]
    return told


def _named(asked: Message, policy: KeyPolicy) -> ModelPolicy:
    check_version(asked.version)
    model = policy.models.get(asked.name)
    if model is None:
        raise errors.model_not_found(asked.name)
    return model


def _targets(serving: ModelServing, version: str) -> list[Target]:
    """The deployments that may have a version."""
    return [each for each in serving.targets if not version or each.version in ("", version)]


def _read(kind: type, content: bytes) -> Message:
    try:
        return read(kind, content)
    except CallerError as problem:
        raise TritonBroken(problem.message) from None
