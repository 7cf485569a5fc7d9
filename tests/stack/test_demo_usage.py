"""The demo's history is a function: the same hours give the same requests."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import UUID

from meterplane.contracts.usage import cost_nano
from meterplane.kernel.ids import minted_at_ms
from meterplane.stack.demo_usage import CHAT, EMBEDDING, TENSOR, Caller, UnitPrices, history

TENANT, PROJECT, VERSION = UUID(int=1), UUID(int=2), UUID(int=9)
CALLERS = [
    Caller(TENANT, PROJECT, UUID(int=3), "support"),
    Caller(TENANT, PROJECT, UUID(int=4), "search"),
    Caller(TENANT, PROJECT, UUID(int=5), "indexing"),
    Caller(TENANT, PROJECT, UUID(int=6), "notebook"),
]
PRICES = {
    CHAT: UnitPrices(VERSION, "USD", 150_000, 600_000, 0),
    EMBEDDING: UnitPrices(VERSION, "USD", 20_000, 0, 0),
    TENSOR: UnitPrices(VERSION, "USD", 0, 0, 50_000_000),
}
START = datetime(2026, 10, 1, tzinfo=UTC)
END = START + timedelta(days=31)


def test_history_is_the_same_at_every_call():
    first = list(history(CALLERS, PRICES, START, START + timedelta(days=2)))
    assert first == list(history(CALLERS, PRICES, START, START + timedelta(days=2)))
    assert len(first) > 100


def test_a_later_end_only_adds_requests():
    shorter = {admit.request_id for admit, _ in history(CALLERS, PRICES, START, END - timedelta(1))}
    longer = {admit.request_id for admit, _ in history(CALLERS, PRICES, START, END)}
    assert shorter < longer


def test_a_month_is_believable():
    requests = list(history(CALLERS, PRICES, START, END))
    assert 6_000 < len(requests) < 15_000
    settles = [settle for _, settle in requests]
    assert len({settle.request_id for settle in settles}) == len(settles)
    assert {settle.model for settle in settles} == {CHAT, EMBEDDING, TENSOR}
    assert {settle.status for settle in settles} == {"ok", "error", "cancelled"}
    weekdays = Counter(
        datetime.fromtimestamp(s.admitted_at_ms / 1000, UTC).weekday() for s in settles
    )
    assert weekdays[2] > 1.3 * weekdays[6]


def test_every_request_is_priced_and_placed_by_its_own_frames():
    for admit, settle in history(CALLERS, PRICES, START, START + timedelta(days=3)):
        assert minted_at_ms(admit.request_id) == admit.admitted_at_ms == settle.admitted_at_ms
        assert START.timestamp() * 1000 <= admit.admitted_at_ms
        assert settle.cost_nano <= admit.reserved_nano
        assert settle.cost_nano == cost_nano(
            settle.tokens_in,
            settle.tokens_out,
            settle.requests,
            input_token_pico=admit.input_token_pico,
            output_token_pico=admit.output_token_pico,
            request_pico=admit.request_pico,
        )
