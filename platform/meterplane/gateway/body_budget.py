"""How many bytes of request bodies one worker holds at a time, over all its connections.

A body's own bound (16 MB) does not bound them together: a thousand callers, each with a valid key
and one large request, would be 16 GB before admission has seen any of them.

Guarantees: what is counted never exceeds `bytes_max`; a refusal takes nothing. Only bodies above
`BODY_SMALL_BYTES_MAX` are counted, so that however many large ones there are, the small ones that
nearly all requests are get through. Nobody waits here: whoever finds no room is told to come again,
and what they sent until then is dropped, which is room for the others.

What a caller declares is not held for them, only looked at: otherwise a few heads without a body
would keep everyone out.
"""

from meterplane.kernel.errors import WorldError
from meterplane.kernel.limits import BODIES_BYTES_MAX


class BodyBudget:
    """Bytes held now, and the bound. Whoever takes gives back the same number."""

    __slots__ = ("bytes_held", "bytes_max")

    def __init__(self, bytes_max: int = BODIES_BYTES_MAX) -> None:
        self.bytes_max = bytes_max
        self.bytes_held = 0

    def has_room(self, size: int) -> bool:
        """True if `size` bytes more could be held just now."""
        return self.bytes_held + size <= self.bytes_max

    def take(self, size: int) -> bool:
        """Hold `size` bytes more; False, and nothing held, when there is no room for them."""
        if self.bytes_held + size > self.bytes_max:
            return False
        self.bytes_held += size
        return True

    def give_back(self, size: int) -> None:
        """`size` bytes that were taken are held no longer."""
        self.bytes_held -= size


BODIES = BodyBudget()  # of this process, which is one worker


def too_many_large() -> WorldError:
    """For whoever found no room."""
    return WorldError(
        "too_many_large_requests", "The gateway holds too many large requests; try again."
    )
