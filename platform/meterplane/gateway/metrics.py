"""What a worker counts about itself, and its Prometheus text.

Counting costs a dictionary look-up and a few additions per request; the text is made by
prometheus_client when somebody asks for it. Names and label values are bounded: models come from
policies, everything else from this code.
"""

import resource
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, exposition
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric

from meterplane.gateway.run import Run

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
TOKENS_PER_S = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000)
MODELS_MAX = 512  # label values; what comes after them is counted under "other"

Gauge = Callable[[], float]


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

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative, as Prometheus wants them."""
        found, sum_so_far = [], 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            sum_so_far += count
            found.append(("+Inf" if bound == float("inf") else f"{bound:g}", float(sum_so_far)))
        return found


class _Served:
    """Everything counted of one surface and model."""

    __slots__ = ("first_byte", "seconds", "statuses", "tokens_in", "tokens_out", "tokens_per_s",
                 "upstream")  # fmt: skip

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.seconds = Histogram(SECONDS)
        self.upstream = Histogram(SECONDS)
        self.first_byte = Histogram(SECONDS)
        self.tokens_per_s = Histogram(TOKENS_PER_S)
        self.tokens_in = 0
        self.tokens_out = 0


@dataclass(slots=True)
class Metrics:
    """One worker's counts. `gauges` and `counters` are read when the text is made."""

    gauges: dict[str, tuple[str, Gauge]] = field(default_factory=dict)
    counters: dict[str, tuple[str, Gauge]] = field(default_factory=dict)
    _served: dict[tuple[str, str], _Served] = field(default_factory=dict)
    _refusals: dict[tuple[str, str], int] = field(default_factory=dict)

    def admitted(self, run: Run, status: int, seconds: float) -> None:
        """Count a request that was admitted, when it has been answered."""
        key = (run.work.surface, run.model.name)
        served = self._served.get(key)
        if served is None:
            served = self._add(key)
        served.statuses[status] = served.statuses.get(status, 0) + 1
        served.seconds.observe(seconds)
        settled = run.settled
        if settled is None:
            return
        compute_s = settled.compute_us / 1_000_000
        served.upstream.observe(compute_s)
        if run.work.stream:
            served.first_byte.observe(run.first_byte_s)
            if settled.tokens_out and compute_s:
                served.tokens_per_s.observe(settled.tokens_out / compute_s)
        served.tokens_in += settled.tokens_in
        served.tokens_out += settled.tokens_out

    def refused(self, surface: str, code: str) -> None:
        """Count a request that was not admitted, by why."""
        self._refusals[surface, code] = self._refusals.get((surface, code), 0) + 1

    def _add(self, key: tuple[str, str]) -> _Served:
        if len(self._served) >= MODELS_MAX:
            key = (key[0], "other")
            if key in self._served:
                return self._served[key]
        served = self._served[key] = _Served()
        return served

    def text(self) -> bytes:
        """The Prometheus exposition."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return exposition.generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client."""
        yield from self._requests()
        refusals = CounterMetricFamily(
            "meterplane_gateway_refusals",
            "Requests that were not admitted, by the code they were told.",
            labels=["surface", "code"],
        )
        for (surface, code), count in self._refusals.items():
            refusals.add_metric([surface, code], count)
        yield refusals
        for name, (what, read) in self.gauges.items():
            yield GaugeMetricFamily(f"meterplane_gateway_{name}", what, value=read())
        for name, (what, read) in self.counters.items():
            yield CounterMetricFamily(f"meterplane_gateway_{name}", what, value=read())
        usage = resource.getrusage(resource.RUSAGE_SELF)
        yield CounterMetricFamily(
            "process_cpu_seconds", "CPU of this worker.", value=usage.ru_utime + usage.ru_stime
        )

    def _requests(self) -> Iterator[Metric]:
        labels = ["surface", "model"]
        requests = CounterMetricFamily(
            "meterplane_gateway_requests", "Admitted requests.", labels=[*labels, "status"]
        )
        tokens = CounterMetricFamily(
            "meterplane_gateway_tokens", "Tokens metered.", labels=[*labels, "kind"]
        )
        histograms = {
            name: HistogramMetricFamily(f"meterplane_gateway_{name}", what, labels=labels)
            for name, what in _HISTOGRAMS.items()
        }
        for key, served in self._served.items():
            for status, count in served.statuses.items():
                requests.add_metric([*key, str(status)], count)
            tokens.add_metric([*key, "input"], served.tokens_in)
            tokens.add_metric([*key, "output"], served.tokens_out)
            for name, each in (
                ("request_seconds", served.seconds),
                ("upstream_seconds", served.upstream),
                ("first_byte_seconds", served.first_byte),
                ("tokens_per_second", served.tokens_per_s),
            ):
                histograms[name].add_metric(list(key), each.buckets(), each.total)
        yield requests
        yield tokens
        yield from histograms.values()


_HISTOGRAMS = {
    "request_seconds": "From the request's last byte to the answer's.",
    "upstream_seconds": "From forwarding to the last byte of the server's answer.",
    "first_byte_seconds": "Streams: from forwarding to the first byte of the answer.",
    "tokens_per_second": "Streams: output tokens a second.",
}
