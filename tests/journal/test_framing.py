"""Frames as byte scripts: whatever is cut or flipped, what is read was written whole."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterplane.journal import framing
from meterplane.kernel.invariant import InvariantBroken
from meterplane.kernel.limits import FRAME_BYTES_MAX

PAYLOADS = [b"a", b"\0" * 40, b"usage" * 30, bytes(range(256))]
STREAM = b"".join(framing.encode(payload) for payload in PAYLOADS)


def bodies(data: bytes) -> list[bytes]:
    return [payload.body for payload in framing.split(data)[0]]


def test_a_frame_is_length_checksum_payload_in_little_endian():
    # CRC32C over length and payload; value from RFC 3720's polynomial, computed independently.
    assert framing.encode(b"a")[:4] == b"\x01\0\0\0"
    assert framing.encode(b"a")[8:] == b"a"
    assert int.from_bytes(framing.encode(b"a")[4:8], "little") == slow_crc32c(b"\x01\0\0\0a")


def slow_crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_every_cut_keeps_every_whole_frame_and_names_where_the_tail_starts():
    ends = [0]
    for payload in PAYLOADS:
        ends.append(ends[-1] + framing.PREFIX_BYTES + len(payload))
    for cut in range(len(STREAM) + 1):
        payloads, damage = framing.split(STREAM[:cut])
        whole = sum(end <= cut for end in ends) - 1
        assert [payload.body for payload in payloads] == PAYLOADS[:whole]
        if cut == ends[whole]:
            assert damage is None
        else:
            assert damage == framing.Damage(ends[whole], "torn")


def test_every_flipped_bit_is_noticed():
    for position in range(len(STREAM) * 8):
        altered = bytearray(STREAM)
        altered[position // 8] ^= 1 << position % 8
        payloads, damage = framing.split(bytes(altered))
        assert damage is not None
        assert [payload.body for payload in payloads] == PAYLOADS[: len(payloads)]
        assert damage.offset <= position // 8


def test_a_page_of_zeros_is_damage_and_not_a_row_of_empty_frames():
    payloads, damage = framing.split(STREAM + b"\0" * 4096)
    assert len(payloads) == len(PAYLOADS)
    assert damage == framing.Damage(len(STREAM), "length")


def test_a_length_nobody_writes_is_refused_before_it_is_believed():
    huge = (FRAME_BYTES_MAX + 1).to_bytes(4, "little") + b"\0" * 4
    assert framing.split(huge)[1] == framing.Damage(0, "length")


@pytest.mark.parametrize("size", [0, FRAME_BYTES_MAX + 1])
def test_a_frame_that_could_not_be_read_back_is_not_written(size: int):
    with pytest.raises(InvariantBroken):
        framing.encode(b"x" * size)


@given(st.lists(st.binary(min_size=1, max_size=200), max_size=20))
def test_what_is_written_is_read(payloads: list[bytes]):
    data = b"".join(framing.encode(payload) for payload in payloads)
    assert bodies(data) == payloads
    assert framing.split(data)[1] is None


@given(st.binary(max_size=400))
def test_reading_any_bytes_ends_without_an_error(data: bytes):
    payloads, damage = framing.split(data)
    read = sum(framing.PREFIX_BYTES + len(payload.body) for payload in payloads)
    assert read == (len(data) if damage is None else damage.offset)


def test_a_thousand_torn_and_flipped_tails_are_all_noticed():
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    for _ in range(1000):
        count = chance.randrange(1, 8)
        written = [chance.randbytes(chance.randrange(1, 300)) for _ in range(count)]
        data = bytearray(b"".join(framing.encode(payload) for payload in written))
        cut = chance.randrange(1, len(data))
        del data[cut:]
        if chance.random() < 0.5:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        payloads, damage = framing.split(bytes(data))
        assert [payload.body for payload in payloads] == written[: len(payloads)]
        read = sum(framing.PREFIX_BYTES + len(payload.body) for payload in payloads)
        assert (damage is None) == (read == len(data))
