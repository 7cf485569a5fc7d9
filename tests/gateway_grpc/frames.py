"""HTTP/2 by hand: calls whose message never ends, which no gRPC client can make."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator

from tests.gateway_grpc.tensors import SERVICE

DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
FRAME_BYTES_MAX = 16_384


def frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    """One frame."""
    return struct.pack(">I", len(content))[1:] + struct.pack(">BBI", kind, flags, stream) + content


def literal(name: bytes, value: bytes) -> bytes:
    """A header that is in no table; both below 127 bytes."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


class Connection:
    """One connection. `over` are the streams that the server ended, by their number."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)))
        self._lock = threading.Lock()
        self._room = {0: 65_535}
        self._first_room = 65_535
        self._streams = 0
        self.over: set[int] = set()
        self._write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, b""))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def begin(self, method: str, size: int, secret: str = "") -> int:
        """Begin a call whose message is to have `size` bytes; its stream."""
        number = 2 * self._streams + 1
        self._streams += 1
        headers = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", f"{SERVICE}/{method}".encode()),
            (b":authority", b"x"),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
        ]
        if secret:
            headers.append((b"authorization", b"Bearer " + secret.encode()))
        self._room[number] = self._first_room
        self._write(frame(HEADERS, 4, number, b"".join(literal(*each) for each in headers)))
        self.send(number, b"\0" + struct.pack(">I", size))
        return number

    def send(self, stream: int, content: bytes, *, last: bool = False, wait_s: float = 5) -> int:
        """As much of the content as the server takes within the time; how much that was."""
        sent, end_at = 0, time.monotonic() + wait_s
        while sent < len(content) and stream not in self.over and time.monotonic() < end_at:
            most = min(self._room[0], self._room[stream], FRAME_BYTES_MAX, len(content) - sent)
            if most <= 0:
                time.sleep(0.01)
                continue
            with self._lock:
                self._room[0] -= most
                self._room[stream] -= most
            ends = last and sent + most == len(content)
            self._write(frame(DATA, int(ends), stream, content[sent : sent + most]))
            sent += most
        return sent

    def _write(self, content: bytes) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendall(content)

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError), self._socket.makefile("rb") as incoming:
            while len(head := incoming.read(9)) == 9:
                kind, flags, stream = struct.unpack(">BBI", head[3:])
                self._take(kind, flags, stream, incoming.read(int.from_bytes(head[:3], "big")))

    def _take(self, kind: int, flags: int, stream: int, content: bytes) -> None:
        if kind == SETTINGS and not flags & 1:
            for name, value in struct.iter_unpack(">HI", content):
                if name == 4:
                    self._first_room = value
            self._write(frame(SETTINGS, 1, 0, b""))
        elif kind == PING and not flags & 1:
            self._write(frame(PING, 1, 0, content))
        elif kind == WINDOW:
            with self._lock:
                self._room[stream] = self._room.get(stream, 0) + int.from_bytes(content, "big")
        elif kind == RESET or (kind in (DATA, HEADERS) and flags & 1):
            self.over.add(stream)

    def close(self) -> None:
        """Leave."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._reader.join(5)


@contextlib.contextmanager
def connected(address: str) -> Iterator[Connection]:
    """A connection of its own."""
    made = Connection(address)
    time.sleep(0.3)  # until the server has told its settings
    try:
        yield made
    finally:
        made.close()
