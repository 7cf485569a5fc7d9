"""What a server says, in our names: its model is the one the caller asked for.

What it says of a request is passed on, because a caller can act on it ("unexpected shape for input
'INPUT0'"). What it says of itself is not: where a model's code lies, what its shared memory is
called (with that name a caller of some Triton versions took the server over, CVE-2025-23319), where
it listens, and with which key it is asked.

It holds for every surface: `forward` and `end_broken_stream` tell no failure that was not here.
"""

import re
from functools import lru_cache

import msgspec

from meterplane.gateway.run import Run
from meterplane.kernel.errors import CallerError, WorldError

MEMBERS_CACHED_MAX = 1024  # 1,024 x ~500 bytes; upstream names, which the catalog has

# What Triton calls an internal error (500), or says in a success, and is the caller's: values its
# JSON reader cannot take, and `generate` where only a stream will do.
_OF_THE_CALLER = (
    "Unable to parse",
    "Unable to set",
    "failed to parse the request JSON",
    "generate expects model to produce exactly 1 response",
)
_UNKNOWN_VERSION = re.compile(r"Request for unknown model: '.*' version \d+ is not found").fullmatch
_STACK = re.compile(r"\s*\bAt:\n.*", re.DOTALL)  # a Python model's, with the paths of its files
# With a space: `shared_memory_region` is a word of the protocol, and so the caller's.
_OF_THE_SERVER = re.compile(
    r"shared memory|shm|/dev/|/opt/|/models/|\.py\b"
    r"|(?<![\w/])/(?:data|etc|home|mnt|proc|root|srv|tmp|usr|var|workspace)/"
    r"|\b\d{1,3}(?:\.\d{1,3}){3}:\d"  # who listens where
    r"|\b(?:sk|nvapi|hf)[-_][\w*-]{8}|\bBearer\s",
    re.IGNORECASE,
)


def failure_in_our_names(failure: CallerError | WorldError, run: Run) -> CallerError | WorldError:
    """A server's refusal as the caller is told it."""
    if failure.code not in ("invalid_request", "upstream_failed"):
        return failure  # not a server's words
    text = _STACK.sub("", _renamed(failure.message, run))
    if isinstance(failure, CallerError):
        text = told_of_a_request(text, "the model refused the request")
        if _UNKNOWN_VERSION(text):
            return CallerError("model_version_not_found", text, status=404)
        return CallerError(failure.code, text, status=failure.status)
    if text.startswith(_OF_THE_CALLER):
        return CallerError("invalid_value", text)
    text = told_of_a_request(text, "the model failed")
    return WorldError(failure.code, text, status=failure.status, retry_after_s=None)


def told_of_a_request(text: str, otherwise: str) -> str:
    """A server's words, or `otherwise` where it speaks of itself."""
    text = _STACK.sub("", text)
    return otherwise if _OF_THE_SERVER.search(text) else text


def _renamed(text: str, run: Run) -> str:
    here, there = run.model.name, run.target.upstream
    return text if here == there else text.replace(f"'{there}'", f"'{here}'")


def answer_in_our_names(body: bytes, run: Run, json_bytes: int | None = None) -> bytes:
    """An answer with the name its model is sold by; the rest as the bytes it came as.

    `json_bytes`: how much of it is JSON (None: all of it); tensors are not looked into. The member
    is found without reading the document: a quotation mark inside a JSON string is escaped, so
    these bytes cannot be part of one, and the first of them is the answer's own.
    """
    here, there = run.model.name, run.target.upstream
    if here == there:
        return body
    head = body if json_bytes is None else body[:json_bytes]
    told = _member(there).sub(lambda _: b'"model_name":' + msgspec.json.encode(here), head, 1)
    return told if json_bytes is None else told + body[json_bytes:]


@lru_cache(MEMBERS_CACHED_MAX)
def _member(name: str) -> re.Pattern[bytes]:
    # Not every server writes it without a space.
    return re.compile(rb'"model_name"\s*:\s*' + re.escape(msgspec.json.encode(name)))
