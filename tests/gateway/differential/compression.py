"""Content-Encoding and Accept-Encoding, well and badly used."""

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import replace

from tests.gateway.differential.case import (
    BYTES_OF_TWO,
    INFER,
    LENGTH,
    RAW_TWO,
    TWO,
    Case,
    encoded,
    infer,
)


def cases() -> Iterator[Case]:
    """All of them."""
    body = encoded({"inputs": [TWO], "id": "packed"})
    for accepted in (
        "gzip",
        "deflate",
        "gzip, deflate",
        "deflate, gzip",
        "gzip;q=0.5, deflate;q=0.9",
        "gzip;q=0.1, identity",
        "gzip;q=0",
        "*",
        "identity",
        "br",
        "br, gzip",
        "",
    ):
        yield infer(body, Accept_Encoding=accepted)
        asked = {"inputs": [TWO], "parameters": {"binary_data_output": True}}
        yield infer(asked, Accept_Encoding=accepted)
        yield infer({"inputs": [TWO | {"data": ["a", 1]}]}, Accept_Encoding=accepted)
        yield infer({"inputs": [TWO, TWO]}, Accept_Encoding=accepted)
    gzipped, deflated = gzip.compress(body, mtime=0), zlib.compress(body)
    for encoding, sent in (
        ("gzip", gzipped),
        ("deflate", deflated),
        ("gzip", deflated),
        ("deflate", gzipped),
        ("identity", body),
        ("gzip", gzipped + b"after its end"),
    ):
        yield infer(sent, Content_Encoding=encoding)
        yield infer(sent, Content_Encoding=encoding, Accept_Encoding="deflate")
    for encoding in ("br", "zstd", "gzip, deflate"):
        yield infer(body, difference="encoding", Content_Encoding=encoding)
    capitals = infer(gzipped, difference="encoding in capitals", Content_Encoding="GZIP")
    yield replace(capitals, as_if=infer(body))
    for broken in (gzipped[:-9], gzipped[:-1], gzipped[:-8] + b"\0" * 8):
        yield infer(broken, difference="not whole", Content_Encoding="gzip")
    yield infer(b"", difference="refused either way", Content_Encoding="gzip")
    yield infer(gzip.compress(b"{"), difference="unreadable", Content_Encoding="gzip")
    head = encoded({"inputs": [RAW_TWO | {"parameters": {"binary_data_size": 8}}]})
    for asked in ({}, {"Accept-Encoding": "gzip"}):
        headers = {LENGTH: str(len(head)), "Content-Encoding": "gzip"} | asked
        yield Case("POST", INFER, gzip.compress(head + BYTES_OF_TWO), headers)
