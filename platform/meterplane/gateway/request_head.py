"""What a request's head must not say, beyond what the parser refuses by itself."""

import httptools


class Refused(Exception):
    """Raised inside the parser's callbacks; it arrives as a parser error with this as context."""

    def __init__(self, why: str, status: int = 400) -> None:
        super().__init__(why)
        self.status = status


# Headers that decide who calls or where a message ends: two of them are two meanings.
ONCE = frozenset(
    {
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"host",
        b"inference-header-content-length",
        b"transfer-encoding",
    }
)


def path_of(target: bytes) -> bytes:
    """The path of a request target in absolute form (`http://host/path`)."""
    try:
        return httptools.parse_url(target).path or b"/"
    except httptools.HttpParserInvalidURLError:
        raise Refused("its target is not a path") from None
