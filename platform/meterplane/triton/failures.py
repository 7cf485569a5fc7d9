"""How an inference server can let us down, each with the status an edge answers."""

import re

from meterplane.kernel.errors import WorldError

# Triton's words, all of them, for a model whose process died (`python_be.cc`, `stub_launcher.cc`):
# a part of them may be a caller's own text that a server repeats.
_DIED = (
    r"(?:in ensemble '[^']*', )?"
    r"(?:Failed to process the request\(s\) for model(?: instance)? '[^']*', message: )?"
    r"Stub process (?:'[^']*' )?is not healthy\.?"
)
MODEL_DIED = re.compile(_DIED)
MODEL_DIED_BODY = re.compile(rb'\s*(?:data:\s*)?\{\s*"error"\s*:\s*"' + _DIED.encode() + rb'"')


class TritonUnavailable(WorldError):
    """No server took the request: nothing was computed, so it may be sent elsewhere.

    Attributes:
        servers_asked: how many servers were asked in vain.
        may_have_begun: the last of them had the request and was lost before a byte of an answer.
            It may have been computed: it is not sent elsewhere.
    """

    servers_asked = 1
    may_have_begun = False

    def __init__(self, detail: str = "") -> None:
        super().__init__(
            "upstream_unavailable",
            "The inference server cannot be reached just now. Nothing was charged; try again."
            + (f" ({detail})" if detail else ""),
            status=503,
            retry_after_s=2,
        )


class TritonTimeout(WorldError):
    """A server took the request and was silent for too long."""

    def __init__(self) -> None:
        super().__init__(
            "upstream_timeout",
            "The inference server did not answer in time.",
            status=504,
            retry_after_s=2,
        )


class TritonBroken(WorldError):
    """A server answered something that is not HTTP, ended early, or answered too much."""

    def __init__(self, detail: str) -> None:
        super().__init__(
            "upstream_broken",
            f"The inference server's answer could not be read: {detail}.",
            status=502,
            retry_after_s=None,
        )
