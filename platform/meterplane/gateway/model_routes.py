"""Routes that tell of models: not admitted, not billed, and fresh to the second about the key."""

import re

from meterplane.contracts.policy import KeyPolicy, ModelPolicy
from meterplane.contracts.serving import ModelServing, Target
from meterplane.gateway import errors
from meterplane.gateway.authenticate import authenticate
from meterplane.gateway.callers import identify
from meterplane.gateway.exchange import JSON, Exchange
from meterplane.gateway.offers import plain_serving
from meterplane.gateway.pipeline import Parts
from meterplane.gateway.surfaces import kserve_models, openai_models
from meterplane.kernel.errors import WorldError
from meterplane.kernel.limits import REFUSING_POLICY_AGE_S_MAX
from meterplane.triton.health import READY_TIMEOUT_S, ready
from meterplane.triton.request import Request
from meterplane.triton.upstream import Response
from meterplane.triton.v2 import model_path

PLAIN = b"content-type: text/plain\r\n"  # what Triton calls an empty body
NAME = r"(?P<model>[A-Za-z0-9][A-Za-z0-9._-]{0,79})"
VERSION = r"(/versions/(?P<version>[0-9]{1,9}))?"
ONE = re.compile(rf"/v1/models/{NAME}")
METADATA = re.compile(rf"/v2/models/{NAME}{VERSION}")
READY = re.compile(rf"/v2/models/{NAME}{VERSION}/ready")
STATS = re.compile(rf"/v2/models(/{NAME}{VERSION})?/stats")


async def listed(exchange: Exchange, parts: Parts) -> None:
    """`GET /v1/models`."""
    policy = await _policy(exchange, parts)
    exchange.answer(200, JSON, openai_models.listed(policy))


async def one(exchange: Exchange, parts: Parts) -> None:
    """`GET /v1/models/{id}`."""
    policy = await _policy(exchange, parts)
    model, _ = _named(ONE, exchange, policy)
    exchange.answer(200, JSON, openai_models.one(model, policy))


async def server(exchange: Exchange, parts: Parts) -> None:
    """`GET /v2`."""
    exchange.answer(200, JSON, kserve_models.SERVER)


async def metadata(exchange: Exchange, parts: Parts) -> None:
    """`GET /v2/models/{m}[/versions/{v}]`."""
    model, version = _named(METADATA, exchange, await _policy(exchange, parts))
    if model.adapter == "openai":
        exchange.answer(200, JSON, kserve_models.described(model))
        return
    serving = await serving_of(model, parts)
    kserve_models.check_version(serving, version)
    answer = await _ask(serving, version, parts)
    if answer.status == 404 and version:
        raise kserve_models.version_not_found(model.name, version)
    if answer.status != 200:
        raise WorldError(
            "model_not_ready", f"The model {model.name!r} is not ready; try again.", retry_after_s=2
        )
    exchange.answer(200, JSON, kserve_models.metadata(model, serving, answer.body))


async def _ask(serving: ModelServing, version: str, parts: Parts) -> Response:
    """A model's metadata from the first of its deployments that can be reached."""
    unreachable: WorldError | None = None
    for target in _targets(serving, version):
        request = Request("GET", model_path(target.upstream, "", version or target.version))
        try:
            return await parts.fleet.pool(target.servers).fetch(
                request, first_byte_timeout_s=READY_TIMEOUT_S, idle_timeout_s=READY_TIMEOUT_S
            )
        except WorldError as problem:
            unreachable = problem
    raise unreachable or errors.serving_unknown(serving.name)


def _targets(serving: ModelServing, version: str) -> list[Target]:
    """The deployments that may have a version."""
    return [each for each in serving.targets if not version or each.version in ("", version)]


async def is_ready(exchange: Exchange, parts: Parts) -> None:
    """`GET /v2/models/{m}[/versions/{v}]/ready`; clients look at the status only."""
    model, version = _named(READY, exchange, await _policy(exchange, parts))
    if model.adapter == "openai":
        exchange.answer(200, PLAIN, b"")
        return
    serving = await serving_of(model, parts)
    for target in _targets(serving, version):
        pool = parts.fleet.pool(target.servers)
        if await ready(pool, target.upstream, version or target.version):
            exchange.answer(200, PLAIN, b"")
            return
    exchange.answer(400, JSON, kserve_models.NOT_READY)


async def statistics(exchange: Exchange, parts: Parts) -> None:
    """`GET /v2/models/{m}/stats`: refused, and said why."""
    await _policy(exchange, parts)
    raise kserve_models.statistics_refused()


async def serving_of(model: ModelPolicy, parts: Parts) -> ModelServing:
    """How a model is reached. Raises `WorldError` when it cannot be read."""
    if model.serving_version == 0:
        return plain_serving(model)
    serving = await parts.servings.find(model.name, model.serving_version)
    if serving is None:
        raise errors.serving_unknown(model.name)
    return serving


async def _policy(exchange: Exchange, parts: Parts) -> KeyPolicy:
    caller = identify(exchange.headers.get(b"authorization"), parts.pepper)
    return await authenticate(caller.digest, parts.policies, REFUSING_POLICY_AGE_S_MAX)


def _named(
    pattern: re.Pattern[str], exchange: Exchange, policy: KeyPolicy
) -> tuple[ModelPolicy, str]:
    """The model of a path, and the version it names. Raises `CallerError` 404."""
    match = pattern.fullmatch(exchange.path)
    name = match["model"] if match else ""
    model = policy.models.get(name)
    if model is None:
        raise errors.model_not_found(name)
    version = match.groupdict().get("version") if match else None
    return model, version or ""
