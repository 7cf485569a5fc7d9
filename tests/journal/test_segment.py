"""Segment headers, names and order."""

import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterplane.contracts.usage import Frame, decode
from meterplane.journal import reader
from meterplane.journal.segment import (
    Header,
    decode_header,
    encode_header,
    encode_segment,
    is_torn_header,
    list_segments,
    next_segment_id,
)
from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from tests.journal.frames import admit, checkpoint, settle


@given(st.uuids(), st.text(min_size=1, max_size=40).filter(lambda name: name.isprintable()))
def test_a_header_names_segment_and_gateway(segment_id: uuid.UUID, gateway: str):
    data = encode_header(segment_id, gateway)
    assert decode_header(data + b"frames") == Header(segment_id, gateway, len(data))


def test_a_header_cut_anywhere_is_torn_and_never_read():
    header = encode_header(uuid7(), "gateway-1")
    for cut in range(len(header)):
        assert decode_header(header[:cut]) is None
        assert is_torn_header(header[:cut])
        assert is_torn_header(header[:cut] + bytes(4096))
    assert is_torn_header(b"\0" * 4096)
    assert not is_torn_header(header)
    assert not is_torn_header(header + bytes(4096))


def test_a_header_with_any_flipped_bit_is_not_read():
    header = encode_header(uuid7(), "gateway-1")
    for position in range(len(header) * 8):
        altered = bytearray(header + b"x" * 300)
        altered[position // 8] ^= 1 << position % 8
        assert decode_header(bytes(altered)) is None


def test_a_segment_made_in_memory_reads_like_one_from_disk():
    request_id = uuid7()
    frames: list[Frame] = [admit(request_id), checkpoint(request_id, 5), settle(request_id)]
    content = reader.parse_segment(encode_segment(uuid7(), "seed", frames))
    assert content.damage is None
    assert list(reader.frames_of(content)) == frames


def test_ids_rise_when_the_clock_steps_back():
    instant = datetime(2026, 11, 3, 12, tzinfo=UTC)
    with clock.frozen(instant):
        first = next_segment_id(None)
        second = next_segment_id(first)
    with clock.frozen(instant - timedelta(hours=1)):
        third = next_segment_id(second)
    assert first < second < third


def test_segments_are_listed_in_writing_order_and_strangers_ignored(tmp_path: Path):
    ids = [uuid7(instant) for instant in (1_790_000_000_002, 1_790_000_000_000, 1_790_000_000_001)]
    for segment_id, suffix in zip(ids, ("open", "sealed", "sealed"), strict=True):
        (tmp_path / f"{segment_id}.{suffix}").write_bytes(b"frames")
    (tmp_path / "notes.sealed").write_bytes(b"")
    (tmp_path / "lock").write_bytes(b"")
    assert [segment.segment_id for segment in list_segments(tmp_path)] == sorted(ids)
    assert [segment.sealed for segment in list_segments(tmp_path)] == [True, True, False]


def test_a_frame_of_another_version_is_skipped_not_fatal():
    from meterplane.journal import framing

    data = encode_header(uuid7(), "g") + framing.encode(b"\x81\xa4kind\xa6future")
    content = reader.parse_segment(data)
    assert content.damage is None
    assert reader.decode_payload(content.payloads[0]) is None
    with pytest.raises(ValueError, match="future"):
        decode(content.payloads[0].body)
