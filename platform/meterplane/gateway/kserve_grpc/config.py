"""The gRPC gateway's configuration: the gateway's own, a port, and where Triton speaks gRPC.

A worker name of its own is given here, because it names a journal: two processes never share one.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from meterplane.gateway import config

WORKER = "grpc-1"
PORT = "8702"
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9._-]{1,253}):[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class GrpcConfig:
    """`servers` are `host:port`."""

    gateway: config.Config
    port: int
    servers: list[str]


def from_environment(env: Mapping[str, str]) -> GrpcConfig:
    """Raises `ConfigInvalid` naming every variable that is missing or wrong."""
    problems: list[str] = []
    gateway: config.Config | None = None
    try:
        gateway = config.from_environment({"GATEWAY_WORKER": WORKER} | dict(env))
    except config.ConfigInvalid as invalid:
        problems += invalid.problems
    port = env.get("GATEWAY_GRPC_PORT", PORT).strip()
    if not port.isdigit() or not 0 < int(port) < 65_536:
        problems.append("GATEWAY_GRPC_PORT must be a port number")
    listed = env.get("TRITON_GRPC_URLS", "")
    servers = [each.strip() for each in listed.split(",") if each.strip()]
    if not servers:
        problems.append("TRITON_GRPC_URLS is empty")
    problems += [
        f"TRITON_GRPC_URLS: {each!r} is not a host:port address"
        for each in servers
        if not _ADDRESS.fullmatch(each)
    ]
    if problems or gateway is None:
        raise config.ConfigInvalid(problems)
    return GrpcConfig(gateway, int(port), servers)
