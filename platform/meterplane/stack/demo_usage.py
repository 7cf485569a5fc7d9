"""What a small company's inference looks like over weeks: believable, and the same at every call.

Pure: a caller (one API key), a model's prices and an hour give that hour's requests, with their
ids. Seeing an hour twice changes nothing downstream, because the ids are the same.

The shape: three callers with habits of their own. A support assistant that follows office hours, a
search that people use by day and that is indexed at night, and a notebook somebody experiments in.
Traffic grows slowly, weekends are calm, some streams are left early and a few requests fail.
"""

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from meterplane.contracts import usage
from meterplane.kernel import clock
from meterplane.kernel.money import pico_to_nano_ceil

Habit = Literal["support", "search", "indexing", "notebook"]

CHAT, EMBEDDING, TENSOR = "tiny-lm", "all-minilm-l6-v2", "identity"
GROWTH_PER_DAY = 0.012
# Share of a usual hour, by hour of the day (UTC).
OFFICE = (2, 1, 1, 1, 1, 2, 5, 14, 30, 42, 46, 44, 34, 40, 46, 44, 36, 26, 16, 10, 8, 6, 4, 3)
PEOPLE = (6, 4, 3, 2, 2, 4, 9, 18, 26, 30, 32, 34, 32, 31, 32, 33, 34, 36, 38, 38, 32, 24, 16, 10)
NIGHT = (0, 60, 90, 40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
SPORADIC = (0, 0, 0, 0, 0, 0, 0, 2, 8, 14, 16, 10, 4, 12, 18, 16, 8, 4, 2, 3, 4, 2, 0, 0)
WEEKEND = {"support": 0.22, "search": 0.65, "indexing": 1.0, "notebook": 0.1}
CURVES: dict[str, tuple[int, ...]] = {
    "support": OFFICE,
    "search": PEOPLE,
    "indexing": NIGHT,
    "notebook": SPORADIC,
}
PER_HOUR_AT_PEAK: dict[str, int] = {"support": 13, "search": 8, "indexing": 20, "notebook": 6}
CANCELLED_SHARE = 0.015
FAILED_SHARE = 0.008


@dataclass(frozen=True, slots=True)
class UnitPrices:
    """Pico per unit, and the version they come from."""

    version_id: UUID
    currency: str
    input_token_pico: int
    output_token_pico: int
    request_pico: int


@dataclass(frozen=True, slots=True)
class Caller:
    """One API key and what it is used for."""

    tenant_id: UUID
    project_id: UUID
    key_id: UUID
    habit: Habit


@dataclass(frozen=True, slots=True)
class _Work:
    """What one request asked for and got, before it is priced."""

    model: str
    surface: usage.Surface
    stream: bool
    tokens_in: int
    tokens_out: int
    tokens_out_max: int
    rows: int
    bytes_in: int
    bytes_out: int
    first_byte_ms: int
    total_ms: int


def history(
    callers: list[Caller],
    prices: Mapping[str, UnitPrices],
    start: datetime,
    end: datetime,
) -> Iterator[tuple[usage.Admit, usage.Settle]]:
    """Every request admitted in [start, end), hour by hour. `start` is a full hour."""
    hour = start
    while hour < end:
        for caller in callers:
            for admit, settle in _hour(caller, prices, hour, (hour - start).days):
                if admit.admitted_at_ms < clock.to_ms(end):
                    yield admit, settle
        hour += timedelta(hours=1)


def _hour(
    caller: Caller, prices: Mapping[str, UnitPrices], hour: datetime, day: int
) -> Iterator[tuple[usage.Admit, usage.Settle]]:
    dice = random.Random(f"{caller.key_id}{hour:%Y%m%d%H}")  # noqa: S311  a rhythm, not a secret
    curve = CURVES[caller.habit]
    expected = PER_HOUR_AT_PEAK[caller.habit] * curve[hour.hour] / max(curve)
    expected *= WEEKEND[caller.habit] if hour.weekday() >= 5 else 1.0
    expected *= (1 + GROWTH_PER_DAY) ** day * dice.lognormvariate(0.0, 0.25)
    began_ms = clock.to_ms(hour)
    for at_ms in sorted(
        began_ms + dice.randrange(3_600_000) for _ in range(_poisson(dice, expected))
    ):
        work = _work(dice, caller.habit)
        if work.model in prices:
            yield _request(dice, caller, prices[work.model], work, at_ms)


def _work(dice: random.Random, habit: Habit) -> _Work:
    if habit == "support" or (habit == "notebook" and dice.random() < 0.5):
        return _chat(dice, streams=habit == "support" or dice.random() < 0.3)
    if habit == "notebook" and dice.random() < 0.5:
        return _tensor(dice)
    return _embedding(dice, texts=dice.randint(64, 256) if habit == "indexing" else 1)


def _chat(dice: random.Random, *, streams: bool) -> _Work:
    tokens_in = min(3_000, int(dice.lognormvariate(7.2, 0.5)) + 8)  # with retrieved context
    tokens_out = min(1_000, int(dice.lognormvariate(5.5, 0.5)) + 1)
    first_byte_ms = int(dice.lognormvariate(3.6, 0.4)) + 5
    return _Work(
        model=CHAT,
        surface="openai.chat",
        stream=streams,
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        tokens_out_max=1_024,
        rows=1,
        bytes_in=tokens_in * 4 + 180,
        bytes_out=tokens_out * (190 if streams else 5) + 320,
        first_byte_ms=first_byte_ms,
        total_ms=first_byte_ms + tokens_out * dice.randint(7, 12),
    )


def _embedding(dice: random.Random, *, texts: int) -> _Work:
    tokens_in = sum(
        min(256, int(dice.lognormvariate(4.9 if texts > 1 else 3.0, 0.5)) + 3) for _ in range(texts)
    )
    total_ms = 6 + tokens_in // 24 + dice.randrange(6)
    return _Work(
        model=EMBEDDING,
        surface="openai.embeddings",
        stream=False,
        tokens_in=tokens_in,
        tokens_out=0,
        tokens_out_max=0,
        rows=texts,
        bytes_in=tokens_in * 5 + 90,
        bytes_out=texts * 384 * 11 + 140,
        first_byte_ms=total_ms,
        total_ms=total_ms,
    )


def _tensor(dice: random.Random) -> _Work:
    values = dice.choice((16, 256, 4096))
    total_ms = 2 + dice.randrange(5)
    return _Work(
        model=TENSOR,
        surface="kserve.infer",
        stream=False,
        tokens_in=0,
        tokens_out=0,
        tokens_out_max=0,
        rows=1,
        bytes_in=values * 4 + 160,
        bytes_out=values * 4 + 210,
        first_byte_ms=total_ms,
        total_ms=total_ms,
    )


def _request(
    dice: random.Random, caller: Caller, price: UnitPrices, asked: _Work, at_ms: int
) -> tuple[usage.Admit, usage.Settle]:
    request_id = _request_id(dice, at_ms)
    reserved_nano = pico_to_nano_ceil(
        asked.tokens_in * price.input_token_pico
        + asked.tokens_out_max * price.output_token_pico
        + price.request_pico
    )
    admit = usage.Admit(
        request_id=request_id,
        tenant_id=caller.tenant_id,
        project_id=caller.project_id,
        key_id=caller.key_id,
        model=asked.model,
        surface=asked.surface,
        stream=asked.stream,
        currency=price.currency,
        price_version_id=price.version_id,
        input_token_pico=price.input_token_pico,
        output_token_pico=price.output_token_pico,
        request_pico=price.request_pico,
        reserved_nano=reserved_nano,
        admitted_at_ms=at_ms,
    )
    return admit, _settled(dice, admit, asked)


def _settled(dice: random.Random, admit: usage.Admit, asked: _Work) -> usage.Settle:
    status, http_status, share = _outcome(dice, streams=asked.stream)
    failed = status == "error"
    tokens_in = 0 if failed else asked.tokens_in
    tokens_out = math.ceil(asked.tokens_out * share)
    requests = 0 if failed else 1
    total_ms = asked.first_byte_ms + math.ceil((asked.total_ms - asked.first_byte_ms) * share)
    return usage.Settle(
        request_id=admit.request_id,
        tenant_id=admit.tenant_id,
        project_id=admit.project_id,
        key_id=admit.key_id,
        model=admit.model,
        surface=admit.surface,
        stream=admit.stream,
        status=status,
        http_status=http_status,
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        requests=requests,
        rows=0 if failed else asked.rows,
        bytes_in=asked.bytes_in,
        bytes_out=120 if failed else math.ceil(asked.bytes_out * share),
        provenance="units" if asked.surface == "kserve.infer" else "engine",
        currency=admit.currency,
        price_version_id=admit.price_version_id,
        cost_nano=usage.cost_nano(
            tokens_in,
            tokens_out,
            requests,
            input_token_pico=admit.input_token_pico,
            output_token_pico=admit.output_token_pico,
            request_pico=admit.request_pico,
        ),
        reserved_nano=admit.reserved_nano,
        admitted_at_ms=admit.admitted_at_ms,
        settled_at_ms=admit.admitted_at_ms + total_ms,
        first_byte_ms=asked.first_byte_ms,
        total_ms=total_ms,
    )


def _outcome(dice: random.Random, *, streams: bool) -> tuple[usage.Status, int, float]:
    """How it ended, and which share of the output was made until then."""
    chance = dice.random()
    if chance < FAILED_SHARE:
        return "error", 503, 0.0
    if streams and chance < FAILED_SHARE + CANCELLED_SHARE:
        return "cancelled", 200, dice.uniform(0.1, 0.8)
    return "ok", 200, 1.0


def _request_id(dice: random.Random, at_ms: int) -> UUID:
    """A UUIDv7 of that millisecond whose random bits come from the dice."""
    return UUID(
        int=at_ms << 80 | 0x7 << 76 | dice.getrandbits(12) << 64 | 0b10 << 62 | dice.getrandbits(62)
    )


def _poisson(dice: random.Random, expected: float) -> int:
    """Knuth's method; the expected count of an hour is below a hundred."""
    limit, product, count = math.exp(-expected), dice.random(), 0
    while product > limit:
        product *= dice.random()
        count += 1
    return count
