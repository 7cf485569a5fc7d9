"""One connection to Redis that asks in turns: so many commands out, exactly as many answers back.

Guarantees: an answer never meets another question. Exchanges are answered in the order in which
they were asked. Each ends with a mark of its own that Redis says back; one whose mark is not where
it belongs, or that cannot be read, breaks the connection for good before anybody is given an answer
of it. A broken connection tells whoever asked, once, and is not used again. No command is ever
repeated.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import hiredis

from meterplane.kernel.invariant import ensure

Answered = Callable[[list[Any] | None], None]
_MORE = object()  # what the parser answers when it has no whole reply


class AddressInvalid(ValueError):
    """A Redis URL that cannot be used. The message has no password in it."""


class OpeningRefused(ConnectionError):
    """Redis answered the opening of a connection with an error: a password, a database."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a Redis listens, and what a connection says first."""

    path: str | None
    host: str
    port: int
    tls: ssl.SSLContext | None
    opening: tuple[bytes, ...]


def pack(*parts: str) -> bytes:
    """One command as Redis reads it."""
    packed: bytes = hiredis.pack_command(parts)  # type: ignore[arg-type]  # its stub knows one part
    return packed


def parse_address(url: str) -> Address:
    """From a `redis://`, `rediss://` or `unix://` URL, with the query parameters of redis-py.

    Raises `AddressInvalid`.
    """
    try:
        return _plain(url) or _by_redis_py(url)
    except Exception as problem:
        raise AddressInvalid(
            f"this Redis URL cannot be used ({type(problem).__name__}); "
            "redis://, rediss:// and unix:// are known, with redis-py's parameters"
        ) from None  # what redis-py says may quote the URL


def _plain(url: str) -> Address | None:
    """The common forms, without TLS and without parameters; None for any other."""
    parts = urlsplit(url)
    database = parts.path.strip("/") if parts.scheme == "redis" else "0"
    if parts.scheme not in ("redis", "unix") or not (database or "0").isdecimal():
        return None
    if parts.scheme == "unix" and parts.query.startswith("db=") and parts.query[3:].isdecimal():
        database = parts.query[3:]
    elif parts.query or parts.fragment:
        return None
    credentials = [unquote(each) for each in (parts.username, parts.password) if each]
    if parts.username and not parts.password:
        return None
    opening = [pack("AUTH", *credentials)] if credentials else []
    if int(database or 0):
        opening.append(pack("SELECT", str(int(database))))
    if parts.scheme == "unix":
        return Address(unquote(parts.path), "", 0, None, tuple(opening))
    host = unquote(parts.hostname or "localhost")
    return Address(None, host, parts.port or 6379, None, tuple(opening))


def _by_redis_py(url: str) -> Address:
    """Every form that redis-py takes; loading it costs 120 ms and 9 MB, so only where needed."""
    from redis.asyncio.connection import ConnectionPool

    known: Any = ConnectionPool.from_url(url).make_connection()  # type: ignore[no-untyped-call]
    context = getattr(known, "ssl_context", None)
    opening = []
    if known.username or known.password:
        credentials = [known.username] if known.username else []
        opening.append(pack("AUTH", *credentials, known.password or ""))
    if known.client_name:
        opening.append(pack("CLIENT", "SETNAME", known.client_name))
    if known.db:
        opening.append(pack("SELECT", str(known.db)))
    return Address(
        path=getattr(known, "path", None),
        host=getattr(known, "host", ""),
        port=int(getattr(known, "port", 0)),
        tls=context.get() if context is not None else None,
        opening=tuple(opening),
    )


class RedisConnection(asyncio.Protocol):
    """The protocol, without any waiting of its own: bytes in, answers out."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader(notEnoughData=_MORE)
        self._transport: asyncio.Transport | None = None
        self._answers: list[Any] = []
        self._asked = 0
        self._exchanges: deque[tuple[int, bytes, Answered]] = deque()
        self.lost = False

    def ask(self, commands: bytes, count: int, answered: Answered) -> None:
        """Send `count` commands; `answered` is called once, with their answers or None if lost.

        An error that Redis answers to a command is an answer: a `hiredis.ReplyError`.
        """
        ensure(count > 0, "an exchange asks something")
        if self.lost or self._transport is None:
            answered(None)
            return
        self._asked += 1
        mark = b"%d" % self._asked
        self._exchanges.append((count, mark, answered))
        self._transport.write(b"%b*2\r\n$4\r\nECHO\r\n$%d\r\n%b\r\n" % (commands, len(mark), mark))

    def abort(self) -> None:
        """Break the connection now; whoever asked is told now."""
        if self._transport is not None:
            self._transport.abort()
        self._lose()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, _: Exception | None) -> None:
        self._lose()

    def data_received(self, data: bytes) -> None:
        if self.lost:
            return
        reader, answers = self._reader, self._answers
        try:
            reader.feed(data)
            while (answer := reader.gets()) is not _MORE:
                answers.append(answer)
        except hiredis.ProtocolError:
            self.abort()
            return
        while self._exchanges and len(self._answers) > self._exchanges[0][0]:
            count, mark, answered = self._exchanges[0]
            said = self._answers[count]
            if said != mark and not isinstance(said, hiredis.ReplyError):
                break  # nobody can say which answer belongs to which question
            answers, self._answers = self._answers[:count], self._answers[count + 1 :]
            self._exchanges.popleft()
            answered(answers)
        else:
            if self._exchanges or not (self._answers or reader.has_data()):
                return
        self.abort()

    def _lose(self) -> None:
        self.lost = True
        while self._exchanges:
            *_, answered = self._exchanges.popleft()
            answered(None)


async def connect(address: Address, further: tuple[bytes, ...]) -> RedisConnection:
    """A connection that Redis has let in and that has taken `further` commands.

    Raises `OSError` (of which `OpeningRefused` is one). Not bounded in time: the caller is.
    """
    loop = asyncio.get_running_loop()
    if address.path is not None:
        _, connection = await loop.create_unix_connection(RedisConnection, address.path)
    else:
        _, connection = await loop.create_connection(
            RedisConnection, address.host, address.port, ssl=address.tls
        )
    commands = (*address.opening, *further)
    answered: asyncio.Future[list[Any] | None] = loop.create_future()

    def arrived(answers: list[Any] | None) -> None:
        if not answered.done():
            answered.set_result(answers)

    try:
        if commands:
            connection.ask(b"".join(commands), len(commands), arrived)
            answers = await answered
            if answers is None:
                raise OpeningRefused("the connection was lost while it was opened")
            for answer in answers:
                if isinstance(answer, hiredis.ReplyError):
                    raise OpeningRefused(str(answer))
    except BaseException:
        connection.abort()
        raise
    return connection
