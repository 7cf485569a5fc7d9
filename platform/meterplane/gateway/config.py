"""The gateway's configuration, read once from the environment and frozen.

Every problem is reported in one list. An empty secret is not a secret: the process refuses to
start.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import urlsplit

from meterplane.gateway import spans
from meterplane.gateway.addresses import Network
from meterplane.journal.writer import Mode
from meterplane.kernel.limits import ADMISSION_TIMEOUT_S, JOURNAL_FREE_BYTES_MIN

PEPPER_BYTES_MIN = 32
_WORKER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")  # it names a directory of the journal


class ConfigInvalid(Exception):
    """The environment cannot be used; `problems` has one sentence per variable."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Config:
    """Where the gateway listens and whom it talks to."""

    host: str
    port: int
    worker: str
    database_url: str
    admission_redis_url: str
    triton_urls: list[str]
    journal_dir: Path
    pepper: bytes
    journal_mode: Mode = "durable"
    journal_free_bytes_min: int = JOURNAL_FREE_BYTES_MIN
    journal_backlog_bytes_max: int = 0  # none: the disk is the bound
    admission_timeout_s: float = ADMISSION_TIMEOUT_S
    reuse_port: bool = False
    control_url: str = ""
    tokenizers_dir: Path | None = None
    metrics_host: str = "127.0.0.1"
    trusted_proxies: tuple[Network, ...] = ()
    spans: bool = False  # exported to the collector that OTEL_ variables name
    metrics_port: int = 0  # 0: nobody is told


def from_environment(env: Mapping[str, str]) -> Config:
    """Raises `ConfigInvalid` naming every variable that is missing or wrong."""
    problems: list[str] = []

    def need(name: str, schemes: tuple[str, ...] = ()) -> str:
        text = env.get(name, "").strip()
        if not text:
            problems.append(f"{name} is empty")
        elif schemes and urlsplit(text).scheme not in schemes:
            problems.append(f"{name} must start with {' or '.join(s + '://' for s in schemes)}")
        return text

    database_url = need("GATEWAY_DATABASE_URL", ("postgresql", "postgres"))
    redis_url = need("ADMISSION_REDIS_URL", ("redis", "rediss", "unix"))
    listed = need("TRITON_URLS")
    triton_urls = [url.strip().rstrip("/") for url in listed.split(",") if url.strip()]
    if listed and not triton_urls:
        problems.append("TRITON_URLS names no server")
    for url in triton_urls:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            problems.append(f"TRITON_URLS: {url!r} is not an http:// or https:// address")
    pepper = _pepper(need("API_KEY_PEPPER"), problems)
    journal_dir = need("JOURNAL_DIR")
    port = env.get("GATEWAY_PORT", "8701")
    if not port.isdigit() or not 0 < int(port) < 65_536:
        problems.append("GATEWAY_PORT must be a port number")
    metrics_port = _metrics_port(env.get("GATEWAY_METRICS_PORT", ""), port, problems)
    admission_timeout_s = _admission_timeout_s(env.get("ADMISSION_TIMEOUT_MS", ""), problems)
    worker = env.get("GATEWAY_WORKER", "gateway-1")
    if not _WORKER.fullmatch(worker):
        problems.append("GATEWAY_WORKER must be letters, digits, _ and -, at most 100")
    mode, free_bytes_min, backlog_bytes_max = _journal(env, problems)
    tokenizers = env.get("TOKENIZERS_DIR", "").strip()
    if tokenizers and not Path(tokenizers).is_dir():
        problems.append(f"TOKENIZERS_DIR: {tokenizers!r} is not a directory")
    trusted_proxies = _networks(env.get("TRUSTED_PROXIES", ""), problems)
    problems += spans.problems(env)
    if problems:
        raise ConfigInvalid(problems)
    return Config(
        host=env.get("GATEWAY_HOST", "127.0.0.1"),
        port=int(port),
        worker=worker,
        database_url=database_url,
        admission_redis_url=redis_url,
        triton_urls=triton_urls,
        journal_dir=Path(journal_dir),
        pepper=pepper,
        journal_mode=mode,
        journal_free_bytes_min=free_bytes_min,
        journal_backlog_bytes_max=backlog_bytes_max,
        admission_timeout_s=admission_timeout_s,
        reuse_port=env.get("GATEWAY_REUSE_PORT", "") == "1",
        control_url=env.get("CONTROL_URL", "").strip().rstrip("/"),
        tokenizers_dir=Path(tokenizers) if tokenizers else None,
        metrics_host=env.get("GATEWAY_METRICS_HOST", "").strip() or "127.0.0.1",
        metrics_port=metrics_port,
        trusted_proxies=trusted_proxies,
        spans=spans.asked_for(env),
    )


def _journal_mode(text: str, problems: list[str]) -> Mode:
    if text == "process":
        return "process"
    if text != "durable":
        problems.append("JOURNAL_MODE must be durable or process")
    return "durable"


def _journal(env: Mapping[str, str], problems: list[str]) -> tuple[Mode, int, int]:
    return (
        _journal_mode(env.get("JOURNAL_MODE", "durable").strip(), problems),
        _bytes(env, "JOURNAL_FREE_BYTES_MIN", JOURNAL_FREE_BYTES_MIN, problems),
        _bytes(env, "JOURNAL_BACKLOG_BYTES_MAX", 0, problems),
    )


def _bytes(env: Mapping[str, str], name: str, default: int, problems: list[str]) -> int:
    text = env.get(name, "").strip()
    if not text:
        return default
    if not text.isdecimal() or int(text) > 2**60:
        problems.append(f"{name} must be a number of bytes")
        return default
    return int(text)


def _metrics_port(text: str, port: str, problems: list[str]) -> int:
    text = text.strip() or "0"
    if not text.isdigit() or not int(text) < 65_536:
        problems.append("GATEWAY_METRICS_PORT must be a port number, or empty for no metrics")
        return 0
    if text == port != "0":
        problems.append(
            "GATEWAY_METRICS_PORT must not be GATEWAY_PORT: what it tells is the operator's alone"
        )
    return int(text)


def _admission_timeout_s(text: str, problems: list[str]) -> float:
    text = text.strip() or str(round(ADMISSION_TIMEOUT_S * 1000))
    if not text.isdecimal() or not 10 <= int(text) <= 10_000:
        problems.append("ADMISSION_TIMEOUT_MS must be a number of milliseconds, 10 to 10000")
        return ADMISSION_TIMEOUT_S
    return int(text) / 1000


def _networks(text: str, problems: list[str]) -> tuple[Network, ...]:
    found: list[Network] = []
    for each in (part.strip() for part in text.split(",")):
        try:
            found += [ip_network(each)] if each else []
        except ValueError:
            problems.append(f"TRUSTED_PROXIES: {each!r} is no address and no CIDR range")
    return tuple(found)


def _pepper(text: str, problems: list[str]) -> bytes:
    try:
        pepper = bytes.fromhex(text)
    except ValueError:
        problems.append("API_KEY_PEPPER must be hexadecimal")
        return b""
    if text and len(pepper) < PEPPER_BYTES_MIN:
        problems.append(f"API_KEY_PEPPER must be at least {PEPPER_BYTES_MIN} bytes")
    return pepper
