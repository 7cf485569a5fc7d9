"""What a worker counts about its requests, and the text it makes of that and of its state.

Counting costs two or three microseconds per request: a dictionary look-up and a few additions.
Names and label values are bounded: models come from policies, everything else from this code,
nothing from a caller. Durations are floats of seconds, as Prometheus wants them; nothing here is
billed.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from meterplane.gateway.exposition import Family, Histogram, head_of, lines_of
from meterplane.gateway.run import Run

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
TOKENS_PER_S = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000)
MODELS_MAX = 512  # pairs of surface and model; what comes after them is counted under "other"
SAMPLES_AT_ONCE = 16  # x 19 lines of a histogram x 0.3 us = 0.1 ms that a request may wait

Gauge = Callable[[], float]
Source = Callable[[], Iterator[Family]]


class _Served:
    """Everything counted of one surface and model."""

    __slots__ = ("first_token", "seconds", "statuses", "tokens_in", "tokens_out", "tokens_per_s",
                 "upstream")  # fmt: skip

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.seconds = Histogram(SECONDS)
        self.upstream = Histogram(SECONDS)
        self.first_token = Histogram(SECONDS)
        self.tokens_per_s = Histogram(TOKENS_PER_S)
        self.tokens_in = 0
        self.tokens_out = 0


@dataclass(slots=True)
class Metrics:
    """One worker's counts. `gauges`, `counters` and `sources` are read when the text is made."""

    gauges: dict[str, tuple[str, Gauge]] = field(default_factory=dict)
    counters: dict[str, tuple[str, Gauge]] = field(default_factory=dict)
    sources: list[Source] = field(default_factory=list)
    _served: dict[tuple[str, str], _Served] = field(default_factory=dict)
    _refusals: dict[tuple[str, str], int] = field(default_factory=dict)

    def admitted(self, run: Run, status: int, seconds: float) -> None:
        """Count a request that was admitted, when it has been answered."""
        work = run.work
        key = (work.surface, run.model.name)
        served = self._served.get(key)
        if served is None:
            served = self._add(key)
        served.statuses[status] = served.statuses.get(status, 0) + 1
        served.seconds.observe(seconds)
        settled = run.settled
        if settled is None:
            return
        if settled.compute_us:
            compute_s = settled.compute_us / 1_000_000
            served.upstream.observe(compute_s)
            if work.stream and (first_byte_s := run.first_byte_s):
                served.first_token.observe(first_byte_s)
                if settled.tokens_out:
                    served.tokens_per_s.observe(settled.tokens_out / compute_s)
        served.tokens_in += settled.tokens_in
        served.tokens_out += settled.tokens_out

    def refused(self, surface: str, code: str, status: int = 0, seconds: float = 0.0) -> None:
        """Count a request that was not admitted, by the code it was told."""
        self._refusals[surface, code] = self._refusals.get((surface, code), 0) + 1
        if status:
            self.unmetered(surface, status, seconds)

    def unmetered(self, surface: str, status: int, seconds: float) -> None:
        """Count a request that no model answered."""
        served = self._served.get((surface, ""))
        if served is None:
            served = self._served[surface, ""] = _Served()
        served.statuses[status] = served.statuses.get(status, 0) + 1
        served.seconds.observe(seconds)

    def _add(self, key: tuple[str, str]) -> _Served:
        if len(self._served) >= MODELS_MAX:
            key = (key[0], "other")
            if key in self._served:
                return self._served[key]
        served = self._served[key] = _Served()
        return served

    async def text(self) -> bytes:
        """The Prometheus exposition. Requests are answered while it is made."""
        found = []
        for family in self._families():
            found.append(head_of(family))
            for start in range(0, len(family.samples), SAMPLES_AT_ONCE):
                found.append(lines_of(family, family.samples[start : start + SAMPLES_AT_ONCE]))
                await asyncio.sleep(0)
        return "".join(found).encode()

    def _families(self) -> Iterator[Family]:
        yield from self._requests()
        refusals = Family(
            "meterplane_gateway_refusals",
            "counter",
            "Requests that were not admitted, by the code they were told.",
        )
        for (surface, code), count in list(self._refusals.items()):
            refusals.add(count, surface=surface, code=code)
        yield refusals
        for source in self.sources:
            yield from source()
        for name, (what, read) in list(self.gauges.items()):
            yield Family(f"meterplane_gateway_{name}", "gauge", what, [({}, read())])
        for name, (what, read) in list(self.counters.items()):
            yield Family(f"meterplane_gateway_{name}", "counter", what, [({}, read())])

    def _requests(self) -> Iterator[Family]:
        all_served = [
            (surface, model, served) for (surface, model), served in list(self._served.items())
        ]
        requests = Family(
            "meterplane_gateway_requests", "counter", "Requests answered; model is empty for none."
        )
        tokens = Family("meterplane_gateway_tokens", "counter", "Tokens metered.")
        histograms = {
            name: Family(f"meterplane_gateway_{name}", "histogram", what)
            for name, what in _HISTOGRAMS.items()
        }
        for surface, model, served in all_served:
            for status, count in list(served.statuses.items()):
                requests.add(count, surface=surface, model=model, status=str(status))
            histograms["request_seconds"].add(served.seconds, surface=surface, model=model)
            if not model:
                continue
            tokens.add(served.tokens_in, surface=surface, model=model, kind="input")
            tokens.add(served.tokens_out, surface=surface, model=model, kind="output")
            for name, each in (
                ("upstream_seconds", served.upstream),
                ("time_to_first_token_seconds", served.first_token),
                ("tokens_per_second", served.tokens_per_s),
            ):
                histograms[name].add(each, surface=surface, model=model)
        yield requests
        yield tokens
        yield from histograms.values()


_HISTOGRAMS = {
    "request_seconds": "From the request's arrival to the end of its answer.",
    "upstream_seconds": "From forwarding to the last byte of the server's answer.",
    "time_to_first_token_seconds": "Streams: from forwarding to the first bytes of the answer.",
    "tokens_per_second": "Streams: output tokens a second.",
}
