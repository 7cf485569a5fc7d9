"""The three kinds of failure.

- `CallerError`: the caller's fault. Carries a stable `code`, an HTTP `status`, the offending
  `field` and a sentence that says what to do. Mapped once at each edge to that edge's shape.
- `WorldError`: a server, network or disk let us down. Retried and counted, never a caller's fault.
- Our own faults are `meterplane.kernel.invariant.InvariantBroken`.
"""


class CallerError(Exception):
    """A request that cannot be served as sent.

    Args:
        code: stable machine-readable code, e.g. `model_not_found`.
        message: what was wrong, where, and what to do about it; shown to the caller.
        status: HTTP status, 400 to 499.
        field: the offending field or parameter, if one can be named.
        retry_after_s: seconds after which the same request may succeed, if it may.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int = 400,
        field: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.field = field
        self.retry_after_s = retry_after_s


class WorldError(Exception):
    """Something outside this process failed. `status` is what an edge answers (5xx)."""

    def __init__(
        self, code: str, message: str, *, status: int = 503, retry_after_s: int | None = 1
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.retry_after_s = retry_after_s
