"""Calls to the provider take turns, over all workers; too fast is slowed, and not given up."""

import json
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from uuid import uuid4

import pytest
from django.db import connection

from billing.payments import pace as pacing
from billing.payments.pace import LATE, SECOND, Pace, apart
from billing.payments.provider import ProviderUnavailable
from billing.payments.stripe import Stripe
from billing.payments.stripe.client import endpoint_of
from tests.billing.payments.arrivals import most_within
from tests.seeds import drawn_seed
from tests.stripe_sandbox.rig import KEY

MOMENT, MINUTE = timedelta(milliseconds=1), timedelta(minutes=1)
REFUSED_TOO_FAST = (429, {"error": {"type": "invalid_request_error", "code": "rate_limit"}})
REFUSED_LOCKED = (429, {"error": {"type": "invalid_request_error", "code": "lock_timeout"}})
CUSTOMER = (200, {"id": "cus_1", "object": "customer", "invoice_settings": {}})


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """Seconds that were to be slept, and are not."""
    slept: list[float] = []
    monkeypatch.setattr(pacing.time, "sleep", slept.append)
    return slept


def a_pace(endpoint: timedelta = MOMENT, overall: timedelta = MOMENT) -> Pace:
    return Pace(uuid4().hex, endpoint, overall)


def in_minutes(waits: list[float]) -> list[int]:
    """However slow the machine is: less than half a minute passes between turns."""
    return [round(wait / 60) for wait in waits if wait > 1]


@pytest.mark.parametrize(
    ("method", "url", "endpoint"),
    [
        ("get", "http://h/v1/invoices/in_1AbC", "GET /v1/invoices/{id}"),
        ("post", "http://h/v1/invoices/in_1AbC/finalize", "POST /v1/invoices/{id}/finalize"),
        ("get", "http://h/v1/invoices/in_1/lines?limit=100", "GET /v1/invoices/{id}/lines"),
        ("post", "http://h/v1/invoices/in_1/add_lines", "POST /v1/invoices/{id}/add_lines"),
        ("get", "http://h/v1/invoices", "GET /v1/invoices"),
        ("get", "http://h/v1/payment_methods/pm_card_visa", "GET /v1/payment_methods/{id}"),
        ("post", "http://h/v1/payment_methods", "POST /v1/payment_methods"),
        ("get", "http://h/v1/invoice_payments/inpay_1", "GET /v1/invoice_payments/{id}"),
        ("post", "http://h/v1/checkout/sessions/cs_test_a1", "POST /v1/checkout/sessions/{id}"),
    ],
)
def test_calls_are_counted_by_verb_and_path_whichever_object(method, url, endpoint):
    assert endpoint_of(method, url) == endpoint


@pytest.mark.django_db(transaction=True)
def test_turns_of_one_endpoint_are_an_interval_apart_and_other_endpoints_do_not_wait(waits):
    pace = a_pace(endpoint=MINUTE)
    for _ in range(3):
        pace.take_turn("GET /a")
    pace.take_turn("GET /b")
    assert in_minutes(waits) == [1, 2]


@pytest.mark.django_db(transaction=True)
def test_all_endpoints_together_keep_to_what_the_account_may(waits):
    pace = a_pace(overall=MINUTE)
    for endpoint in ("GET /a", "GET /b", "GET /c"):
        pace.take_turn(endpoint)
    assert in_minutes(waits) == [1, 2]


@pytest.mark.django_db(transaction=True)
def test_what_waited_for_the_account_is_an_interval_of_its_endpoint_apart_all_the_same(waits):
    pace = a_pace(endpoint=2 * MINUTE, overall=MINUTE)
    for endpoint in ("GET /a", "GET /b", "GET /c", "GET /c"):
        pace.take_turn(endpoint)
    assert in_minutes(waits) == [1, 2, 4]


@pytest.mark.django_db(transaction=True)
def test_workers_share_their_turns():
    """The n-th of all their calls begins no earlier than n - 1 intervals after the first."""
    pace, workers, each, rate = a_pace(endpoint=10 * MOMENT), 4, 10, 100
    begun = []

    def work(_: int) -> None:
        for _ in range(each):
            pace.take_turn("GET /a")
            begun.append(time.monotonic())
        connection.close()

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, range(workers)))
    begun.sort()
    assert len(begun) == workers * each
    first = begun[0]
    early = [
        n for n, at in enumerate(begun) if n and at - first < (n - workers) / rate
    ]  # whoever sleeps a little longer begins beside the next
    assert not early


def arrivals(spacing: timedelta, chance: random.Random) -> list[float]:
    """Calls that leave at their turns and are on their way for as long as is allowed for."""
    late_s = (LATE - timedelta(microseconds=1)).total_seconds()
    return sorted(
        n * spacing.total_seconds() + chance.choice([0, late_s, chance.uniform(0, late_s)])
        for n in range(1_000)
    )


@pytest.mark.parametrize("permitted", [25, 100])
def test_no_second_has_more_calls_than_permitted_though_some_come_late(permitted):
    chance = random.Random(drawn_seed())
    found = [most_within(arrivals(apart(permitted), chance), 1.0) for _ in range(20)]
    assert max(found) == permitted
    # As far apart as is permitted and no further, there are more.
    bare = SECOND / permitted
    assert max(most_within(arrivals(bare, chance), 1.0) for _ in range(20)) > permitted


class Sleepy:
    """Time that passes only in sleep, which is longer than it was to be as often as told."""

    def __init__(self, oversleeps: int) -> None:
        self._left, self._now = oversleeps, 0.0
        self.slept: list[int] = []

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds + (0.05 if self._left > 0 else 0.001)
        self._left -= 1
        self.slept.append(round(seconds / 60))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("oversleeps", "slept"), [(0, [1]), (1, [1, 2]), (2, [1, 2, 3])])
def test_who_wakes_too_late_waits_for_another_turn(monkeypatch, oversleeps, slept):
    pace, time_ = a_pace(endpoint=MINUTE), Sleepy(oversleeps)
    monkeypatch.setattr(pacing, "time", time_)
    for _ in range(2):
        pace.take_turn("GET /a")
    assert time_.slept == slept


@pytest.mark.django_db(transaction=True)
def test_who_was_too_fast_makes_everybody_wait_at_that_endpoint_only(waits):
    pace = a_pace()
    pace.hold("GET /a", 120)
    pace.hold("GET /a", 2)  # never shortens
    pace.take_turn("GET /b")
    assert in_minutes(waits) == []
    Pace(pace.account, MOMENT, MOMENT).take_turn("GET /a")
    assert in_minutes(waits) == [2]


class _Scripted(BaseHTTPRequestHandler):
    answers: list[tuple[int, dict[str, object]]]
    keys: list[str | None]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.keys.append(self.headers["Idempotency-Key"])
        status, body = self.answers.pop(0)
        payload = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def scripted() -> Iterator[HTTPServer]:
    """A server whose next answers a test says."""
    server = HTTPServer(("127.0.0.1", 0), _Scripted)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("refusal", [REFUSED_TOO_FAST, REFUSED_LOCKED])
def test_what_was_refused_as_too_fast_is_sent_again_under_its_key(scripted, waits, refusal):
    _Scripted.answers, _Scripted.keys = [refusal, refusal, CUSTOMER], []
    pace = a_pace()
    stripe = Stripe(KEY, f"http://127.0.0.1:{scripted.server_port}", pace)
    assert stripe.send("customer", "", {"name": "A"}, "key-1") == "cus_1"
    assert _Scripted.keys == ["key-1"] * 3
    assert [round(wait) for wait in waits if wait > 0.5] == [1, 2]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT free_at > clock_timestamp() + interval '0.9 s' FROM provider_pace"
            " WHERE account = %s AND endpoint = 'POST /v1/customers'",
            [pace.account],
        )
        assert cursor.fetchone()[0] is (refusal is REFUSED_TOO_FAST)


@pytest.mark.django_db(transaction=True)
def test_who_is_always_too_fast_is_told_to_come_later(scripted, waits):
    _Scripted.answers, _Scripted.keys = [REFUSED_TOO_FAST] * 4, []
    stripe = Stripe(KEY, f"http://127.0.0.1:{scripted.server_port}", a_pace())
    with pytest.raises(ProviderUnavailable):
        stripe.send("customer", "", {"name": "A"}, "key-1")
    assert len(_Scripted.keys) == 4
