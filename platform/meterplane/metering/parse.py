"""From a segment's bytes to usage that can be stored, and to what cannot. Pure; never raises.

Guarantees: every byte of the segment is accounted for. Each SETTLE becomes an event or is set
aside, as is a frame this version does not know and every damaged stretch, with its place; what is
whole behind damage is usage like any other. Once the segment is recorded its file is deleted, so
what is not taken along here is gone. ADMIT and CHECKPOINT are the
shipper's business and are passed over. The bounds are those of the tables or narrower: one record
that PostgreSQL refused would hold up its whole journal. Does not know tenants.

A line of a batch that a killed gateway was at work on is asked again, under the same id. Its end as
a dead process's request would take that id, and the answer that came later would be free. Events
are never changed, so the two are told apart here: what was cut is an event of its own.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

import msgspec

from meterplane.contracts.usage import TAGS_MAX, Settle
from meterplane.journal import reader
from meterplane.kernel import clock
from meterplane.kernel.ids import minted_at_ms, uuid7_of
from meterplane.metering.rows import DAY_MS

FIRST_INSTANT_MS = 1_577_836_800_000  # 2020-01-01; ensure_usage_partition refuses earlier days too
# A gateway's clock may run ahead a little, not by a year: of whole days, today's is the last but
# this many.
DAYS_AHEAD_MAX = 1
QUANTITY_MAX = 10**15  # nine thousand such events still sum up in a bigint
INTEGER_MAX = 2**31 - 1
LAST_INSTANT_MS = 253_402_300_799_000  # the year 9999
TEXT_CHARS_MAX = 256
_CURRENCY = re.compile(r"[A-Z]{3}")
# How `contracts.usage` begins each kind: behind the head of a map of up to 15 fields or of more.
# They are two thirds of all frames, and to decode them would be a third of the work.
_PASSED_OVER = (b"\xa4kind\xa5admit", b"\xa4kind\xaacheckpoint")
_MAP16 = 0xDE


@dataclass(frozen=True, slots=True)
class SetAside:
    """Bytes that cannot become usage, and why."""

    reason: str
    payload: bytes


def parse(segment_id: UUID, data: bytes) -> Iterator[Settle | SetAside]:
    """Take a segment apart, one after the other: the next is made when the last is done with.

    Two thousand of them together are 5 MB, out of a core's cache; at once they cost half as much
    again.
    """
    content = reader.parse_segment(data)
    if content.header is not None and content.header.segment_id != segment_id:
        reason = "the header names another segment"
        yield SetAside(reason, data)
        return
    before_ms = (clock.now_ms() // DAY_MS + 1 + DAYS_AHEAD_MAX) * DAY_MS
    for payload in content.payloads:
        body = payload.body
        if body.startswith(_PASSED_OVER, 3 if body[0] == _MAP16 else 1):
            continue
        frame = reader.decode_payload(payload)
        if frame is None:
            yield SetAside("a frame of no known kind", body)
        elif isinstance(frame, Settle):
            problem = problem_of(frame, before_ms)
            yield _of_its_own(frame) if problem is None else SetAside(problem, body)
    for stretch in content.damaged:
        yield SetAside(str(stretch), data[stretch.offset : stretch.end])


class Ended(Protocol):
    """What tells an event's id: that much of a settlement."""

    @property
    def request_id(self) -> UUID: ...
    @property
    def admitted_at_ms(self) -> int: ...
    @property
    def provenance(self) -> str: ...
    @property
    def service_tier(self) -> str: ...


def event_id_of(settle: Ended) -> UUID:
    """The id of its event: its request's, but for a line of a batch that was cut by a crash.

    The same attempt has the same id and the same hour wherever and however often it is read.
    Attempts of one line differ in when they were admitted. A batch never streams, so that what was
    cut left no checkpoint and costs nothing.
    """
    if settle.provenance != "checkpoint" or settle.service_tier != "batch":
        return settle.request_id
    if settle.request_id.version != 7:
        return settle.request_id  # no event: see `problem_of`
    attempt = b"%b admitted at %d" % (settle.request_id.bytes, settle.admitted_at_ms)
    return uuid7_of(minted_at_ms(settle.request_id), attempt)


def _of_its_own(settle: Settle) -> Settle:
    event_id = event_id_of(settle)
    if event_id is settle.request_id:
        return settle
    return msgspec.structs.replace(settle, request_id=event_id)


def problem_of(settle: Settle, before_ms: int) -> str | None:
    """Why this cannot be a request that was served before an instant, or None."""
    request_id = settle.request_id.int
    if request_id >> 76 & 0xF != 7 or request_id >> 62 & 0b11 != 0b10:
        return "its id is not a UUIDv7"
    if not FIRST_INSTANT_MS <= request_id >> 80 < before_ms:
        return "its day is before there was metering, or in the future"
    if not (
        0 <= settle.admitted_at_ms <= LAST_INSTANT_MS
        and 0 <= settle.settled_at_ms <= LAST_INSTANT_MS
    ):
        return "it is from outside of time"
    quantities = (
        settle.tokens_in, settle.tokens_out, settle.requests, settle.rows, settle.bytes_in,
        settle.bytes_out, settle.cost_nano, settle.reserved_nano, settle.first_byte_ms,
        settle.total_ms, settle.tensor_bytes_in, settle.tensor_bytes_out, settle.queue_us,
        settle.compute_us, settle.retries, settle.tokens_out_stop,
    )  # fmt: skip
    if min(quantities) < 0 or max(quantities) > QUANTITY_MAX:
        return "a quantity is negative or absurd"
    if settle.requests > INTEGER_MAX or settle.retries > INTEGER_MAX:
        return "a quantity is negative or absurd"
    if settle.cost_nano > settle.reserved_nano:
        return "it costs more than was reserved for it"
    if not 0 <= settle.http_status <= 999:
        return "its HTTP status is none"
    if not _CURRENCY.fullmatch(settle.currency):
        return "its currency is none"
    # Of all names at once first: nearly always that is all there is to ask.
    names = (
        settle.model, settle.server, settle.requested_model, settle.deployment, settle.trace_id,
        settle.epoch, settle.region, settle.gpu_type,
    )  # fmt: skip
    if not _is_name("".join(names)) and not all(map(_is_name, names)):
        return "a name in it is too long or holds a NUL"
    tags = settle.tags
    if tags and (
        len(tags) > TAGS_MAX
        or not all(map(_is_name, tags))
        or not all(map(_is_name, tags.values()))
    ):
        return "its tags are too many, too long or hold a NUL"
    return None


def _is_name(text: str) -> bool:
    return len(text) <= TEXT_CHARS_MAX and "\0" not in text
