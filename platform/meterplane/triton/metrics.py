"""What an inference server counts of itself, as Prometheus text, and under which names it is known.

A Triton listens on three ports: HTTP, gRPC and metrics. A gateway calls it by the address it asked:
`http://host:8000` over HTTP, `host:8001` over gRPC. Only whoever deployed it knows that these are
one server, so it is said: `TRITON_METRICS_URLS`, one entry a server, separated by commas, its names
before the address of its metrics:

    http://triton-0:8000|triton-0:8001=http://triton-0:8002/metrics,http://triton-1:8000=...

Guarantees: what cannot be read is a `ValueError` that says what is wrong; nothing is guessed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

FETCH_TIMEOUT_S = 3.0
TEXT_BYTES_MAX = 8 << 20  # a thousand models with twenty series of 100 bytes each are 2 MB
FAMILIES = {
    "nv_inference_request_success": "success",
    "nv_inference_request_failure": "failure",
    "nv_inference_count": "count",
    "nv_inference_exec_count": "exec_count",
}
_SAMPLE = re.compile(r"(\w+)\{(.*)\} (\S+)(?: -?\d+)?")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class MeasuredServer:
    """One server: what gateways call it, the first name being ours for it, and its metrics."""

    names: tuple[str, ...]
    metrics_url: str

    @property
    def name(self) -> str:
        """How we call it."""
        return self.names[0]


@dataclass(frozen=True, slots=True)
class Counters:
    """Of one version of a model, since its server began."""

    success: int = 0
    failure: int = 0
    count: int = 0
    exec_count: int = 0


def measured_servers(text: str) -> list[MeasuredServer]:
    """The servers of `TRITON_METRICS_URLS`. Raises `ValueError`."""
    found: list[MeasuredServer] = []
    taken: set[str] = set()
    for entry in filter(None, (part.strip() for part in text.split(","))):
        named, _, url = entry.partition("=")
        names = tuple(as_named(name) for name in named.split("|") if name.strip())
        parts = urlsplit(url.strip())
        if not names or parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(
                f"{entry!r} is not like http://host:8000|host:8001=http://host:8002/metrics"
            )
        for name in names:
            if name in taken:
                raise ValueError(f"{name!r} is the name of two servers")
            taken.add(name)
        found.append(MeasuredServer(names, url.strip()))
    return found


def as_named(name: str) -> str:
    """A server's name however its address was spelled."""
    return name.strip().rstrip("/")


def read_counters(text: str) -> Mapping[tuple[str, str], Counters]:
    """Counters by model and version, summed over reasons and devices. Raises `ValueError`."""
    found: dict[tuple[str, str], Counters] = {}
    for line in text.splitlines():
        if not line.startswith("nv_inference_"):
            continue
        sample = _SAMPLE.fullmatch(line.strip())
        if sample is None:
            raise ValueError(f"no sample: {line[:200]!r}")
        name, labels, value = sample.groups()
        if name not in FAMILIES:
            continue
        known = dict(_LABEL.findall(labels))
        if "model" not in known:
            raise ValueError(f"of no model: {line[:200]!r}")
        key = (known["model"], known.get("version", ""))
        field = FAMILIES[name]
        before = found.setdefault(key, Counters())
        found[key] = replace(before, **{field: getattr(before, field) + _whole(value)})
    return found


def _whole(value: str) -> int:
    try:
        number = Decimal(value)
        if number == number.to_integral_value() and number >= 0:
            return int(number)
    except (InvalidOperation, OverflowError):
        pass
    raise ValueError(f"{value[:40]!r} counts nothing")


def fetch_counters(url: str) -> Mapping[tuple[str, str], Counters]:
    """Ask a server. Raises `OSError` when it does not answer, `ValueError` when not as Triton."""
    parts = urlsplit(url)
    make = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = make(parts.hostname or "", parts.port, timeout=FETCH_TIMEOUT_S)
    try:
        connection.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
        answer = connection.getresponse()
        body = answer.read(TEXT_BYTES_MAX + 1)
    except HTTPException as broken:
        raise ValueError(f"it does not speak HTTP: {broken!r}") from None
    finally:
        connection.close()
    if answer.status != 200 or len(body) > TEXT_BYTES_MAX:
        raise ValueError(f"it answered {answer.status} with {len(body):,} bytes")
    return read_counters(body.decode("utf-8", "replace"))
