"""Forward an admitted request by the way its surface and its model's adapter have in common.

A server that cannot take the request is left for the next target of the model, and the last target
for the model's fallbacks: only while nothing was computed and nothing was sent to the caller. A
server that had the request and was lost may have computed it: then the caller decides.
"""

from collections.abc import Collection

from meterplane.gateway.adapters import embedding, generate, openai, tensor, text
from meterplane.gateway.adapters.kserve_words import failure_in_our_names
from meterplane.gateway.exchange import Exchange
from meterplane.gateway.pipeline import Forward, Parts
from meterplane.gateway.run import Run
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.kernel.limits import STREAM_DURATION_S_MAX
from meterplane.triton.failures import TritonUnavailable

ENGINES = ("vllm", "tensorrtllm", "llmapi")

_WAYS: dict[tuple[str, str], Forward] = {
    ("openai.chat", "openai"): openai.forward,
    ("openai.completions", "openai"): openai.forward,
    ("openai.embeddings", "openai"): openai.forward,
    ("openai.embeddings", "embedding"): embedding.forward,
    ("kserve.infer", "tensor"): tensor.forward,
    ("kserve.generate", "tensor"): generate.forward,
    **{("kserve.generate", engine): generate.forward for engine in ENGINES},
    **{("openai.chat", engine): text.forward for engine in ENGINES},
    **{("openai.completions", engine): text.forward for engine in ENGINES},
}
_SPEAKERS: dict[str, set[str]] = {}
for _surface, _adapter in _WAYS:
    _SPEAKERS.setdefault(_surface, set()).add(_adapter)


def speakers(surface: str) -> Collection[str]:
    """The adapters that can answer a surface."""
    return _SPEAKERS.get(surface, ())


async def forward(exchange: Exchange, run: Run, parts: Parts) -> None:
    """Answer by the surface's own way. Raises `CallerError`, `WorldError` or `ClientGone`."""
    # Also for a caller who stops reading: a reservation does not live for ever.
    exchange.allow(run.offer.serving.duration_s_max or STREAM_DURATION_S_MAX)
    while True:
        try:
            await _WAYS[run.work.surface, run.offer.model.adapter](exchange, run, parts)
        except TritonUnavailable as failure:
            run.retries += failure.servers_asked - 1
            if exchange.begun or run.served or failure.may_have_begun or not run.move_on():
                raise
        except (CallerError, WorldError) as failure:
            raise failure_in_our_names(failure, run) from None
        else:
            return
