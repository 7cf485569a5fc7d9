"""The base address of an inference server, checked before anything is sent to it.

`http://host:port` is a Triton; a path is a prefix before every request's own, so that
`https://host/v1` is an OpenAI-compatible server whose requests are `/chat/completions`, without
the `/v1`: nothing here guesses whether a caller has put it there already.
"""

import re
from typing import NamedTuple
from urllib.parse import urlsplit

_NETLOC = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.%a-z]+\])(?::[0-9]{1,5})?").fullmatch
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~%-]+)*").fullmatch


class Address(NamedTuple):
    """Where to connect, and what every request to it says. `tls`: it is an https address."""

    host: str
    port: int
    tls: bool
    prefix: bytes
    version_and_host: bytes  # of the request line's end, and the headers up to content-length


def parse(url: str) -> Address:
    """Raises `ValueError`, which says what is wrong with `url`."""
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"{url!r} is not an address: it holds a space or another odd character")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as problem:
        raise ValueError(f"{url!r} is not an address: {problem}") from None
    prefix = parts.path.rstrip("/")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is not an http://host:port or https://host:port address")
    if not _NETLOC(parts.netloc):
        # A password here would be in every log line and metric; it has a setting of its own.
        # Nor in this error.
        raise ValueError(
            f"an address of the host {parts.hostname!r}: only the host, and a port, may follow "
            "the //; a name and password may not"
        )
    if not _PREFIX(prefix) or parts.query or parts.fragment:
        raise ValueError(f"{url!r}: only a plain path may follow the host")
    tls = parts.scheme == "https"
    return Address(
        host=parts.hostname,
        port=port or (443 if tls else 80),
        tls=tls,
        prefix=prefix.encode(),
        version_and_host=b" HTTP/1.1\r\nhost: %b\r\ncontent-length: " % parts.netloc.encode(),
    )
