"""How much one rendering of a chat template may do: steps, seconds, and characters it makes.

Looked at before anything is computed, so that what is refused was never allocated. Limit: lists
nested in themselves many times over are measured where they become text, and not where they are
compared; a template that does that is stopped by nothing here.
"""

import re
import time
from collections.abc import Iterable
from itertools import islice
from typing import Any

from jinja2.exceptions import SecurityError

# A step is a round of a loop, a call, or a filter: about 1 us. Published templates take up to 30 a
# message; those that look at every message for each of them 1,024.
STEPS_SPARE = 20_000
STEPS_PER_MESSAGE = 1_200
# Of the processor, and not of the clock: a busy machine refuses nobody. It runs on the event loop;
# 1,024 messages of a published template take 0.02.
SECONDS_MAX = 2.0
STEPS_PER_LOOK = 8  # the clock of a thread costs 0.9 us
# All texts a rendering makes on its way: a chat of 1,024 messages of 1,000 characters, each put
# behind the text so far, is 512 M.
MADE_CHARS_MAX = 512 * 1024 * 1024
RANGE_MAX = 10_000
INTEGER_BITS_MAX = 4096
WIDTH_DIGITS_MAX = 4
_SEVERAL = (str, list, tuple)
# A `%` with its width and precision, which may be any number, or `*` for one among the values.
_PLACE = re.compile(r"%(?:\([^)]*\))?[-+ #0]*(\*|\d*)(?:\.(\*|\d*))?")


class Limits:
    """What is left of it. One for an environment: renderings do not overlap."""

    __slots__ = ("_deadline", "_made_left", "_steps_left", "chars_max")

    def __init__(self) -> None:
        self.begin(messages=0, chars_max=0)

    def begin(self, *, messages: int, chars_max: int) -> None:
        """A rendering of so many messages; `chars_max` is how long any text of it may become."""
        self._steps_left = STEPS_SPARE + STEPS_PER_MESSAGE * messages
        self._deadline = time.thread_time() + SECONDS_MAX
        self.chars_max = chars_max
        self._made_left = MADE_CHARS_MAX

    def step(self) -> None:
        """One more. Raises `SecurityError`."""
        self._steps_left -= 1
        if self._steps_left < 0:
            raise SecurityError("it takes more steps than its messages can need")
        if not self._steps_left % STEPS_PER_LOOK and time.thread_time() > self._deadline:
            raise SecurityError(f"it takes more than {SECONDS_MAX:g} seconds of a processor")

    def make(self, chars: int) -> None:
        """A text, or a list, of this length is about to be made. Raises `SecurityError`."""
        self._made_left -= chars
        if chars > self.chars_max:
            raise SecurityError("it makes a text longer than its messages can need")
        if self._made_left < 0:
            raise SecurityError("it makes more text than its messages can need")

    def make_text_of(self, value: Any) -> Any:
        """`value`, which is about to become text."""
        self.make(len(value) if isinstance(value, str) else self._size(value))
        return value

    def make_joined(self, between: str, parts: Iterable[Any]) -> list[Any]:
        """The parts, which are about to be joined."""
        found = list(islice(parts, self.chars_max + 1))
        sizes = sum(len(p) if isinstance(p, str) else self._size(p) for p in found)
        self.make(sizes + len(between) * len(found))
        return found

    def make_replaced(self, text: str, old: str, new: str) -> None:
        """`old` in a text is about to become `new`."""
        self.make(len(text) + text.count(old) * len(new))

    def _size(self, value: Any) -> int:
        """About how long a value is as text; what holds itself many times counts as often."""
        size, waiting = 0, [value]
        while waiting:
            each = waiting.pop()
            size += 8
            if isinstance(each, str):
                size += len(each)
            elif isinstance(each, list | tuple):
                waiting += each
            elif isinstance(each, dict):
                waiting += each
                waiting += each.values()
            elif isinstance(each, int):
                size += each.bit_length() // 3
            if size > self.chars_max:
                break
        return size

    def make_product(self, left: Any, right: Any) -> None:
        """`left * right` is about to be computed."""
        for several, times in ((left, right), (right, left)):
            if isinstance(several, _SEVERAL) and isinstance(times, int):
                self.make(len(several) * max(times, 0))
        if isinstance(left, int) and isinstance(right, int):
            check_bits(left.bit_length() + right.bit_length())

    def make_sum(self, left: Any, right: Any) -> None:
        """`left + right` is about to be computed."""
        if isinstance(left, _SEVERAL) and isinstance(right, _SEVERAL):
            self.make(len(left) + len(right))

    def make_formatted(self, form: str, values: Any) -> None:
        """`form % values` is about to be computed."""
        widths = [width for place in _PLACE.findall(form) for width in place if width]
        if any(len(width) > WIDTH_DIGITS_MAX or width == "*" for width in widths):
            raise SecurityError("a text is formatted too widely")
        self.make(len(form) + sum(map(int, widths)) + self._size(values))


def check_bits(bits: int) -> None:
    """Refuse to compute an integer of so many bits. Raises `SecurityError`."""
    if bits > INTEGER_BITS_MAX:
        raise SecurityError("it computes a number that is too large")


def short_range(*limits: int) -> range:
    """`range`, no longer than any template needs. Raises `SecurityError`."""
    found = range(*limits)
    if len(found) > RANGE_MAX:
        raise SecurityError(f"a range is longer than {RANGE_MAX}")
    return found
