"""Failures as gRPC statuses, and a server's statuses as failures. No I/O.

What a server refuses keeps the code and the words that a caller would have had from it directly.
"""

import grpc

from meterplane.gateway.adapters.kserve_words import told_of_a_request
from meterplane.gateway.ask import ERROR_CHARS_MAX, refusal
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.triton.failures import TritonBroken, TritonTimeout, TritonUnavailable

Code = grpc.StatusCode

_OF_STATUS = {
    400: Code.INVALID_ARGUMENT,
    401: Code.UNAUTHENTICATED,
    402: Code.RESOURCE_EXHAUSTED,
    403: Code.PERMISSION_DENIED,
    404: Code.NOT_FOUND,
    408: Code.DEADLINE_EXCEEDED,
    413: Code.RESOURCE_EXHAUSTED,
    429: Code.RESOURCE_EXHAUSTED,
    500: Code.INTERNAL,
    501: Code.UNIMPLEMENTED,
    502: Code.INTERNAL,
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
}
# A model that cannot be asked in this way, as Triton says it.
_UNSUPPORTED = "unsupported_call"
_OUR_KEY_REFUSED = (Code.UNAUTHENTICATED, Code.PERMISSION_DENIED)
# Of a server that says UNAVAILABLE itself, and so did not begin: its words. A connection that broke
# says it too, in gRPC's words, and then nobody knows.
_NOT_BEGUN = ("model", "queue", "server exiting", "not ready")


def code_of(failure: CallerError | WorldError) -> grpc.StatusCode:
    """The status a caller is told."""
    if isinstance(failure, TritonBroken):
        return Code.UNAVAILABLE
    if failure.code == _UNSUPPORTED:
        return Code.UNIMPLEMENTED
    return _OF_STATUS.get(failure.status, Code.UNKNOWN)


def failure_of(error: grpc.aio.AioRpcError) -> CallerError | WorldError:
    """What a server answered that is no answer, or how it was lost."""
    code = error.code()
    text = (error.details() or "the server refused the request")[:ERROR_CHARS_MAX]
    if code is Code.UNAVAILABLE:
        if any(word in text.lower() for word in _NOT_BEGUN):
            return TritonUnavailable(told_of_a_request(text, ""))
        return TritonBroken("the connection broke")
    if code is Code.DEADLINE_EXCEEDED:
        return TritonTimeout()
    if code is Code.NOT_FOUND:
        return CallerError("invalid_request", text, status=404)
    if code is Code.UNIMPLEMENTED:
        return CallerError(_UNSUPPORTED, text)
    if code is Code.RESOURCE_EXHAUSTED:
        return TritonBroken(text)  # an answer that is larger than we take
    if code in (Code.INVALID_ARGUMENT, Code.ALREADY_EXISTS, Code.OUT_OF_RANGE):
        return refusal(400, text)
    if code is Code.CANCELLED:
        return TritonBroken("it cancelled the request")
    return refusal(403 if code in _OUR_KEY_REFUSED else 500, text)
