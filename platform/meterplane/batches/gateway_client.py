"""Ask the gateway for one line: HTTP/1.1 over connections that are kept, one per thread.

Tells apart what matters for accounts: not sent (`Unreachable`), sent without a whole answer
(`NoAnswer`), and an answer.
"""

import threading
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Self
from urllib.parse import urlsplit

from meterplane.batches.limits import ANSWER_BYTES_MAX, ANSWER_TIMEOUT_S, CONNECT_TIMEOUT_S
from meterplane.batches.outcome import Answer, NoAnswer, Unreachable
from meterplane.contracts import batch_pass

SCHEME = batch_pass.SCHEME.decode().title()  # Meterplane-Batch


class GatewayClient:
    """A client of one gateway address, for any number of threads; closes what it opened."""

    def __init__(self, base_url: str) -> None:
        parts = urlsplit(base_url)
        self._make = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._host = parts.hostname or ""
        self._port = parts.port
        self._prefix = parts.path.rstrip("/")
        self._mine = threading.local()
        self._all: list[HTTPConnection] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._all:
            connection.close()

    def post(self, path: str, body: bytes, signed_pass: str) -> Answer:
        """The answer, whatever its status. Raises `Unreachable` or `NoAnswer`."""
        connection, fresh = self._connection()
        try:
            return self._exchange(connection, path, body, signed_pass)
        except (OSError, HTTPException) as broken:
            connection.close()
            if fresh or isinstance(broken, TimeoutError):
                raise NoAnswer(str(broken)) from broken
        # A kept connection may have been closed while it was idle. The same request once more: it
        # has the same id, so that it is metered once even if the first one did arrive.
        try:
            connection, _ = self._connection()
            return self._exchange(connection, path, body, signed_pass)
        except (Unreachable, OSError, HTTPException) as broken:
            connection.close()
            raise NoAnswer(str(broken)) from broken

    def _connection(self) -> tuple[HTTPConnection, bool]:
        connection: HTTPConnection | None = getattr(self._mine, "connection", None)
        if connection is None:
            connection = self._make(self._host, self._port)
            self._mine.connection = connection
            self._all.append(connection)
        if connection.sock is not None:
            return connection, False
        _connect(connection)
        return connection, True

    def _exchange(
        self, connection: HTTPConnection, path: str, body: bytes, signed_pass: str
    ) -> Answer:
        headers = {
            "Authorization": f"{SCHEME} {signed_pass}",
            "Content-Type": "application/json",
            "Accept": "application/json",
        }
        connection.request("POST", self._prefix + path, body, headers)
        response: HTTPResponse = connection.getresponse()
        content = response.read(ANSWER_BYTES_MAX + 1)
        whole = len(content) <= ANSWER_BYTES_MAX
        if not whole:
            connection.close()
        elif response.length:  # `read` with a bound tells of no early end by itself
            raise NoAnswer("the answer ended early")
        return Answer(response.status, content if whole else None, response.headers["Retry-After"])


def _connect(connection: HTTPConnection) -> None:
    try:
        connection.timeout = CONNECT_TIMEOUT_S
        connection.connect()
        connection.sock.settimeout(ANSWER_TIMEOUT_S)
    except OSError as away:
        connection.close()
        raise Unreachable(str(away)) from away
