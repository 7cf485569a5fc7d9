"""Which port each server listens on: the usual one, or a free one when it is taken.

A port that is free now can be taken before its server binds it; the server then fails to start and
is named. Ports chosen in one call are held until all are chosen, so they differ.
"""

import socket
from collections.abc import Mapping
from dataclasses import dataclass

LOOPBACK = "127.0.0.1"
USUAL_BASE = 8700
OFFSETS = {
    "web": 0,
    "gateway": 1,
    "gateway-grpc": 2,
    "stripe": 3,
    "triton": 4,
    "triton-grpc": 5,
    "triton-metrics": 6,
    "gateway-metrics": 7,
    "gateway-grpc-metrics": 8,
}
PORT_MAX = 65_535


@dataclass(frozen=True, slots=True)
class Ports:
    """`numbers[name]` is the port of a server; `moved` names those whose usual port was taken."""

    numbers: Mapping[str, int]
    moved: Mapping[str, int]

    def url(self, name: str) -> str:
        """The loopback base URL of one server."""
        return f"http://{LOOPBACK}:{self.numbers[name]}"

    def address(self, name: str) -> str:
        """Where one server listens, as gRPC clients want it: `host:port`."""
        return f"{LOOPBACK}:{self.numbers[name]}"


def choose(base: int) -> Ports:
    """Ports for every server, from `base` upwards where free. Raises ValueError on a bad base."""
    if not 1024 <= base <= PORT_MAX - max(OFFSETS.values()):
        raise ValueError(
            f"--port-base {base} is out of range; "
            f"use a number from 1024 to {PORT_MAX - max(OFFSETS.values())}"
        )
    numbers: dict[str, int] = {}
    moved: dict[str, int] = {}
    held: list[socket.socket] = []
    try:
        for name, offset in OFFSETS.items():
            wanted = base + offset
            listener = _bind(wanted)
            if listener is None:
                moved[name] = wanted
                listener = _bind(0)
            if listener is None:
                raise OSError("the machine has no free loopback port left")
            held.append(listener)
            numbers[name] = listener.getsockname()[1]
    finally:
        for listener in held:
            listener.close()
    return Ports(numbers, moved)


def is_free(port: int) -> bool:
    """True if a server could listen on `port` of the loopback address now."""
    listener = _bind(port)
    if listener is None:
        return False
    listener.close()
    return True


def _bind(port: int) -> socket.socket | None:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # As servers do: a port whose last connections are still in TIME_WAIT counts as free.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
        listener.listen(1)
    except OSError:
        listener.close()
        return None
    return listener
