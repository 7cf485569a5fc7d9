"""What is whole is read, whatever was damaged around it; each damaged byte is told by its place."""

import random
from uuid import UUID

import pytest

from meterplane.contracts import usage
from meterplane.journal import reader
from meterplane.journal.framing import encode
from meterplane.journal.salvage import Stretch, next_frame, read_on
from meterplane.journal.segment import encode_segment
from meterplane.kernel.ids import uuid7
from tests.journal.frames import admit, checkpoint, settle

FAST_SEGMENTS = 150
LONG_SEGMENTS = 5_000


def segment(count: int = 12) -> tuple[bytes, list]:
    frames = []
    for _ in range(count // 3):
        opened = admit()
        frames += [opened, checkpoint(opened.request_id, 3), settle(opened.request_id)]
    return encode_segment(uuid7(), "g1", frames), frames


def starts_of(data: bytes) -> list[int]:
    return [payload.offset for payload in reader.parse_segment(data).payloads]


def check_accounted(data: bytes, content: reader.SegmentContent) -> None:
    """Header, whole frames and damaged stretches are all there is, and do not overlap."""
    spans = [(each.offset, each.offset + 8 + len(each.body)) for each in content.payloads]
    spans += [(each.offset, each.end) for each in content.damaged]
    spans += [(0, content.header.length)] if content.header else []
    at = 0
    for start, end in sorted(spans):
        assert start == at
        assert end > start
        at = end
    assert at == len(data)


@pytest.mark.parametrize(
    "segments", [FAST_SEGMENTS, pytest.param(LONG_SEGMENTS, marks=pytest.mark.long)]
)
def test_random_damage_costs_the_frames_it_touches_and_no_other(segments: int):
    seed = random.randrange(2**32)
    print("seed", seed, "n", segments)
    chance = random.Random(seed)
    for _ in range(segments):
        data, frames = segment()
        starts = [*starts_of(data), len(data)]
        altered = bytearray(data)
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(starts[0], len(data))
            end = min(len(data), at + chance.choice([1, 1, 3, 40, 600, 2000]))
            how = chance.randrange(3)
            if how == 0:
                altered[at:end] = bytes(end - at)
            elif how == 1:
                altered[at:end] = chance.randbytes(end - at)
            else:
                altered[at] ^= 1 << chance.randrange(8)
        touched = {
            number
            for number in range(len(frames))
            if altered[starts[number] : starts[number + 1]]
            != data[starts[number] : starts[number + 1]]
        }
        content = reader.parse_segment(bytes(altered))
        left = [frame for number, frame in enumerate(frames) if number not in touched]
        assert list(reader.frames_of(content)) == left
        assert bool(content.damaged) == bool(touched)
        check_accounted(bytes(altered), content)


def test_a_lost_header_hides_no_frame():
    data, frames = segment()
    start = starts_of(data)[0]
    content = reader.parse_segment(b"\0" * start + data[start:])
    assert content.header is None
    assert list(reader.frames_of(content)) == frames
    assert content.damaged == [Stretch(0, start, "header")]


def test_bytes_that_are_no_segment_are_one_stretch():
    for data in (b"", b"\0" * 100, b"no segment at all" * 100, random.Random(1).randbytes(5000)):
        content = reader.parse_segment(data)
        assert not content.payloads
        assert content.damaged == [Stretch(0, len(data), "header")]


def test_a_frame_inside_a_damaged_one_is_none_where_a_caller_can_write():
    """A tag is a string; the bytes of a frame are none, so nobody can have one found in it."""
    inner = encode(usage.encode(settle()))
    with pytest.raises(UnicodeDecodeError):
        inner[8:].decode()
    at = inner.index(b"\xa4kind") + 1
    with pytest.raises(UnicodeDecodeError):
        inner[at : at + 12].decode()


def test_a_whole_frame_of_no_known_kind_does_not_end_a_damaged_stretch():
    known = encode(usage.encode(settle()))
    data = b"\xff" * 20 + encode(b"\x81\xa4kind\xa5later") + known
    assert next_frame(data, 0) == len(data) - len(known)
    payloads, stretches = read_on(encode(b"\x81\xa4kind\xa5later") + known, 0)
    assert len(payloads) == 2, "where there is no damage it is for who reads it to say"
    assert stretches == []


def test_a_megabyte_of_zeros_is_passed_at_once():
    data, frames = segment()
    opened = reader.parse_segment(data + bytes(1_200_000), sealed=False)
    assert list(reader.frames_of(opened)) == frames
    assert opened.damaged == []
    assert isinstance(opened.header and opened.header.segment_id, UUID)
