"""Compressed bodies: bounded, whole or refused, never at the cost of other requests. No I/O."""

import asyncio
import gzip
import zlib

import pytest

from meterplane.gateway.compressed import INLINE_BYTES_MAX, compress, decompress, encoding_for
from meterplane.kernel.errors import CallerError
from meterplane.kernel.limits import REQUEST_BODY_BYTES_MAX

BODY = b"".join(b"%d " % (number * number) for number in range(60_000))


@pytest.mark.parametrize(
    "body", [b"", b"x", BODY[:INLINE_BYTES_MAX], bytes(INLINE_BYTES_MAX), BODY]
)
@pytest.mark.parametrize(
    ("encoding", "pack"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)]
)
async def test_what_was_packed_is_unpacked(encoding, pack, body):
    assert await decompress(pack(body), encoding) == body
    packed = await compress(body, encoding)
    assert await decompress(packed, encoding) == body
    unpack = gzip.decompress if encoding == b"gzip" else zlib.decompress
    assert unpack(packed) == body


@pytest.mark.parametrize("encoding", [b"", b"identity"])
async def test_a_plain_body_is_left_alone(encoding):
    assert await decompress(b"\x1f\x8b", encoding) == b"\x1f\x8b"


async def test_the_bound_is_that_of_a_plain_body_to_the_byte():
    whole = gzip.compress(bytes(REQUEST_BODY_BYTES_MAX), 9)
    assert len(await decompress(whole, b"gzip")) == REQUEST_BODY_BYTES_MAX
    for bytes_more in (1, 1024 * 1024 * 1024 // 4):
        bomb = gzip.compress(bytes(REQUEST_BODY_BYTES_MAX + bytes_more), 9)
        with pytest.raises(CallerError, match="larger than 16 MB") as refused:
            await decompress(bomb, b"gzip")
        assert refused.value.status == 413


async def test_a_bomb_leaves_the_loop_to_others():
    bomb = gzip.compress(bytes(REQUEST_BODY_BYTES_MAX), 9)
    turns = 0
    for _ in range(5):
        going_off = asyncio.create_task(decompress(bomb, b"gzip"))
        while not going_off.done():
            await asyncio.sleep(0.001)
            turns += 1
        assert len(going_off.result()) == REQUEST_BODY_BYTES_MAX
    assert turns > 5 * 2  # on the loop it would be one for each bomb, or two


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "ends early"),
        (b"nonsense", "cannot be decompressed"),
        (gzip.compress(BODY)[:-9], "ends early"),
        (gzip.compress(BODY)[:-1], "ends early"),
        (gzip.compress(BODY)[:-8] + b"\0" * 8, "cannot be decompressed"),
        (zlib.compress(b"x")[2:-4], "cannot be decompressed"),
    ],
)
async def test_what_is_not_whole_is_refused(body, says):
    with pytest.raises(CallerError, match=says) as refused:
        await decompress(body, b"gzip")
    assert refused.value.status == 400


@pytest.mark.parametrize("encoding", [b"br", b"zstd", b"gzip, deflate", b"gzip,gzip", b"*"])
async def test_another_encoding_is_refused(encoding):
    with pytest.raises(CallerError, match="gzip, deflate or none") as refused:
        await decompress(gzip.compress(b"x"), encoding)
    assert refused.value.status == 415


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        (None, b""),
        (b"", b""),
        (b"gzip", b"gzip"),
        (b"deflate", b"deflate"),
        (b"gzip, deflate", b"gzip"),
        (b"deflate, gzip", b"deflate"),
        (b"gzip;q=0.5, deflate;q=0.9", b"deflate"),
        (b"gzip;q=0.1, identity", b""),
        (b"gzip;q=0", b""),
        (b"gzip;q=nonsense", b""),
        (b"*", b""),
        (b"br, zstd", b""),
        (b"br;q=1.0, gzip;q=0.2", b"gzip"),
    ],
)
def test_an_answer_is_packed_as_the_caller_prefers(accepted, chosen):
    assert encoding_for(accepted) == chosen
