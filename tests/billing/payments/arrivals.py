"""When calls arrived at the sandbox (`tests.stripe_schema.recorded --arrivals`), counted."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from billing.payments.stripe.client import endpoint_of

OVERALL = "all"


@dataclass(frozen=True, slots=True)
class Rate:
    """Calls of one endpoint, or of all: how many, how fast, and the most in any one second."""

    endpoint: str
    calls: int
    per_s: float
    most_in_a_second: int


def arrived(file: Path, after_line: int = 0) -> list[tuple[float, str]]:
    """(instant in seconds, endpoint) of each call in the file, in order."""
    found = []
    for line in file.read_text().splitlines()[after_line:]:
        came, method, path = line.split(" ", 2)
        found.append((float(came), endpoint_of(method, path)))
    return sorted(found)


def rates(calls: Sequence[tuple[float, str]]) -> dict[str, Rate]:
    """By endpoint, and `OVERALL`."""
    instants: dict[str, list[float]] = defaultdict(list)
    for came, endpoint in calls:
        instants[endpoint].append(came)
        instants[OVERALL].append(came)
    return {name: _rate(name, sorted(each)) for name, each in instants.items()}


def busiest(found: dict[str, Rate]) -> Rate:
    """The endpoint that was called most."""
    return max((r for name, r in found.items() if name != OVERALL), key=lambda each: each.calls)


def _rate(endpoint: str, instants: Sequence[float]) -> Rate:
    took_s = instants[-1] - instants[0]
    per_s = (len(instants) - 1) / took_s if took_s else 0.0
    return Rate(endpoint, len(instants), per_s, most_within(instants, 1.0))


def most_within(instants: Sequence[float], seconds: float) -> int:
    """The most of them in any half-open window of so many seconds, wherever it begins."""
    most = first = 0
    for last, came in enumerate(instants):
        while came - instants[first] >= seconds:
            first += 1
        most = max(most, last - first + 1)
    return most
