"""The environment is read whole or refused whole, and no secret may be empty."""

import os
import subprocess
import sys

import pytest

from meterplane.gateway.config import ConfigInvalid, from_environment

GOOD = {
    "GATEWAY_DATABASE_URL": "postgresql://gateway@/db",
    "ADMISSION_REDIS_URL": "unix:///run/redis.sock",
    "TRITON_URLS": "http://127.0.0.1:8000, http://10.0.0.2:8000/",
    "JOURNAL_DIR": "/var/journal",
    "API_KEY_PEPPER": "ab" * 32,
}


def test_a_whole_environment_is_read():
    config = from_environment(GOOD)
    assert config.triton_urls == ["http://127.0.0.1:8000", "http://10.0.0.2:8000"]
    assert (config.host, config.port, len(config.pepper)) == ("127.0.0.1", 8701, 32)
    assert config.admission_timeout_s == 0.25
    assert (config.journal_mode, config.metrics_port, config.control_url) == ("durable", 0, "")


def test_servers_may_be_reached_over_tls():
    assert from_environment(GOOD | {"TRITON_URLS": "https://a:8000"}).triton_urls


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, "") for name in GOOD],
        ("API_KEY_PEPPER", "ab" * 31),
        ("API_KEY_PEPPER", "not hexadecimal"),
        ("GATEWAY_DATABASE_URL", "mysql://x"),
        ("ADMISSION_REDIS_URL", "http://x"),
        ("TRITON_URLS", "grpc://x"),
        ("TRITON_URLS", ","),
        ("GATEWAY_PORT", "0"),
        ("GATEWAY_PORT", "high"),
        ("GATEWAY_METRICS_PORT", "high"),
        ("GATEWAY_METRICS_PORT", "8701"),
        ("GATEWAY_WORKER", "../elsewhere"),
        ("JOURNAL_MODE", "sometimes"),
        ("ADMISSION_TIMEOUT_MS", "0.25"),
        ("ADMISSION_TIMEOUT_MS", "9"),
        ("ADMISSION_TIMEOUT_MS", "10001"),
        ("TOKENIZERS_DIR", "/nowhere/at/all"),
    ],
)
def test_what_is_wrong_is_named_once(name, value):
    with pytest.raises(ConfigInvalid) as refused:
        from_environment(GOOD | {name: value})
    (problem,) = refused.value.problems
    assert name in problem


def test_an_empty_environment_refuses_to_start_with_a_line_per_problem():
    kept = {name: os.environ[name] for name in ("PATH",)}
    process = subprocess.run(
        [sys.executable, "-m", "meterplane.gateway"],
        env=kept, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 2
    lines = process.stderr.splitlines()
    assert len(lines) == len(GOOD)
    assert all(line.startswith("gateway: ") for line in lines)
