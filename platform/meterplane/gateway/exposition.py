"""Prometheus' text format, version 0.0.4: families of samples to lines.

Guarantees: whatever a label's value holds, a line stays a line; a histogram's buckets rise and its
last one equals its count. Making text is not free (some 0.3 us a line), and a worker's text may
have tens of thousands of lines: `lines_of` is asked for a bit at a time, by someone who lets
requests through in between.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

CONTENT_TYPE = b"content-type: text/plain; version=0.0.4; charset=utf-8\r\n"
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})

Labels = dict[str, str]


class Histogram:
    """Counts by upper bound."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


@dataclass(slots=True)
class Family:
    """All samples of one name. A counter's name is given without its `_total`."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    what: str
    samples: list[tuple[Labels, "float | Histogram"]] = field(default_factory=list)

    def add(self, value: "float | Histogram", **labels: str) -> None:
        """One more sample."""
        self.samples.append((labels, value))


def head_of(family: Family) -> str:
    """The lines before a family's samples."""
    name = f"{family.name}_total" if family.kind == "counter" else family.name
    return f"# HELP {name} {family.what}\n# TYPE {name} {family.kind}\n"


def lines_of(family: Family, samples: Iterable[tuple[Labels, "float | Histogram"]]) -> str:
    """The lines of some of a family's samples."""
    suffix = "_total" if family.kind == "counter" else ""
    return "".join(
        _histogram(family.name, labels, value)
        if isinstance(value, Histogram)
        else f"{family.name}{suffix}{_braces(labels)} {value!r}\n"
        for labels, value in samples
    )


def _histogram(name: str, labels: Labels, histogram: Histogram) -> str:
    inside = "".join(f"{_pair(*label)}," for label in labels.items())
    lines, so_far = [], 0
    for bound, count in zip(histogram.bounds, histogram.counts, strict=False):
        so_far += count
        lines.append(f'{name}_bucket{{{inside}le="{bound:g}"}} {so_far}\n')
    so_far += histogram.counts[-1]
    braces = _braces(labels)
    return (
        f'{"".join(lines)}{name}_bucket{{{inside}le="+Inf"}} {so_far}\n'
        f"{name}_sum{braces} {histogram.total!r}\n{name}_count{braces} {so_far}\n"
    )


def _braces(labels: Labels) -> str:
    return f"{{{','.join(_pair(*label) for label in labels.items())}}}" if labels else ""


def _pair(name: str, value: str) -> str:
    return f'{name}="{value.translate(_ESCAPES)}"'
