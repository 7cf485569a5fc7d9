"""Usage frames survive their encoding, and a crash is settled from what it proves."""

from uuid import UUID

import msgspec
import pytest

from meterplane.contracts import usage
from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from meterplane.metering.parse import problem_of

ADMIT = usage.Admit(
    request_id=uuid7(),
    tenant_id=uuid7(),
    project_id=uuid7(),
    key_id=uuid7(),
    model="tiny-lm",
    surface="openai.chat",
    stream=True,
    currency="USD",
    price_version_id=UUID(int=7),
    input_token_pico=150_000,
    output_token_pico=600_000,
    request_pico=1_000_000,
    reserved_nano=99_000,
    admitted_at_ms=1_790_000_000_000,
)


def test_frames_survive_their_encoding():
    checkpoint = usage.Checkpoint(
        request_id=ADMIT.request_id, tokens_in=3, tokens_out=2, bytes_out=9
    )
    settle = usage.settle_orphan(ADMIT, checkpoint, 1_790_000_005_000)
    for frame in (ADMIT, checkpoint, settle):
        assert usage.decode(usage.encode(frame)) == frame


def test_a_reader_ignores_fields_of_a_later_writer():
    newer = msgspec.to_builtins(ADMIT) | {"kind": "admit", "invented_later": 1}
    assert usage.decode(msgspec.msgpack.encode(newer)) == ADMIT


def test_how_a_request_is_served_outlives_a_crash_and_older_frames_do_not_say_it():
    served = {"priority": "high", "region": "eu-west", "gpu_type": "H100"}
    told = msgspec.structs.replace(ADMIT, **served)
    settle = usage.settle_orphan(told, None, ADMIT.admitted_at_ms)
    unsaid = dict(zip(usage.SERVED, ("normal", "", ""), strict=True))
    for frame in (told, settle):
        fields = msgspec.msgpack.decode(usage.encode(frame))
        assert {name: fields.pop(name) for name in usage.SERVED} == served
        old = usage.decode(msgspec.msgpack.encode(fields))
        assert msgspec.structs.replace(frame, **unsaid) == old


def test_ids_are_written_as_bytes_and_read_as_text_too():
    """As text is how they were written at first, and journals outlive a gateway."""
    assert ADMIT.request_id.bytes in usage.encode(ADMIT)
    as_text = msgspec.msgpack.encode(ADMIT)
    assert str(ADMIT.request_id).encode() in as_text
    assert usage.decode(as_text) == ADMIT


def test_an_interrupted_stream_is_billed_for_its_last_checkpoint():
    last = usage.Checkpoint(request_id=ADMIT.request_id, tokens_in=10, tokens_out=4, bytes_out=40)
    settled = usage.settle_orphan(ADMIT, last, ADMIT.admitted_at_ms + 5000)
    assert settled.status == "interrupted"
    assert settled.cost_nano == 10 * 150 + 4 * 600 + 1000
    assert settled.total_ms == 5000


def test_an_interrupted_stream_costs_its_reservation_at_most_and_is_taken_in():
    last = usage.Checkpoint(request_id=ADMIT.request_id, tokens_in=10, tokens_out=400, bytes_out=9)
    settled = usage.settle_orphan(ADMIT, last, ADMIT.admitted_at_ms + 5000)
    assert (settled.tokens_out, settled.cost_nano) == (400, ADMIT.reserved_nano)
    assert problem_of(settled, clock.now_ms() + 1) is None


def test_a_crash_before_any_output_is_free():
    settled = usage.settle_orphan(ADMIT, None, ADMIT.admitted_at_ms)
    assert (settled.tokens_in, settled.tokens_out, settled.requests, settled.cost_nano) == (0,) * 4


@pytest.mark.parametrize("payload", [b"", b"\xff", b"\x80", b"not msgpack"])
def test_garbage_is_not_a_frame(payload):
    with pytest.raises((msgspec.ValidationError, msgspec.DecodeError)):
        usage.decode(payload)
