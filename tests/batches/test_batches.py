"""Batches by the real web process and the OpenAI client, through a double of the gateway."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import openai
import pytest

from meterplane.batches import doorbell, execute, identifiers, limits, sweep
from meterplane.batches.advance import advance
from meterplane.batches.claim import claim
from meterplane.batches.finish import finish
from meterplane.batches.models import BatchLine
from meterplane.batches.validate import validate
from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from tenants.models import ApiKey
from tenants.scoping import tenant_scope
from tests.batches.conftest import (
    CHAT,
    drive,
    free_port,
    jsonl,
    request_line,
    results,
    row,
    stored_files,
)
from tests.batches.gateway_double import Call, Reply, completion, refusal, running

pytestmark = pytest.mark.django_db(transaction=True)


def ended(client: openai.OpenAI, batch_id: str) -> openai.types.Batch:
    return client.batches.retrieve(batch_id)


def test_a_batch_runs_to_its_end_and_its_answers_are_in_order(client, start, gateway, organisation):
    batch = start(
        *(request_line(f"line-{number}", f"text {number}") for number in range(100)),
        metadata={"job": "nightly"},
    )
    assert (batch.object, batch.status, batch.endpoint, batch.completion_window) == (
        "batch", "validating", CHAT, "24h",
    )  # fmt: skip
    assert (batch.metadata, batch.errors, batch.output_file_id) == ({"job": "nightly"}, None, None)
    assert batch.expires_at == batch.created_at + 86_400
    drive(organisation, batch.id)
    done = ended(client, batch.id)
    assert done.status == "completed"
    assert done.request_counts.to_dict() == {"total": 100, "completed": 100, "failed": 0}
    assert done.usage.to_dict() == {
        "input_tokens": 200, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 200,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 400,
    }  # fmt: skip
    assert done.model == "tiny-lm"
    assert None not in (done.in_progress_at, done.finalizing_at, done.completed_at)
    assert done.error_file_id is None
    lines = results(client, done.output_file_id)
    assert [line["custom_id"] for line in lines] == [f"line-{number}" for number in range(100)]
    for number, line in enumerate(lines):
        assert line.keys() == {"id", "custom_id", "response", "error"}
        assert line["id"].startswith("batch_req_")
        assert line["error"] is None
        assert line["response"]["status_code"] == 200
        content = line["response"]["body"]["choices"][0]["message"]["content"]
        assert content == f"text {number}"
    output = client.files.retrieve(done.output_file_id)
    assert (output.purpose, output.filename) == ("batch_output", f"{batch.id}_output.jsonl")
    with tenant_scope(organisation.id):
        assert BatchLine.objects.count() == 0


def test_every_line_is_asked_once_with_a_pass_for_its_key_and_its_own_request_id(
    client, start, gateway, organisation
):
    def answer(call: Call) -> Reply:
        time.sleep(0.02)  # so that they meet
        return completion(call)

    gateway.answer = answer
    batch = start(*(request_line(str(number), str(number)) for number in range(60)))
    drive(organisation, batch.id)
    with tenant_scope(organisation.id):
        digest = bytes(ApiKey.objects.get().digest)
    assert {call.allowed.digest for call in gateway.calls} == {digest}
    assert {call.allowed.batch_id for call in gateway.calls} == {row(organisation, batch.id).id}
    assert {call.path for call in gateway.calls} == {CHAT}
    asked = {call.text: str(call.allowed.request_id) for call in gateway.calls}
    assert len(gateway.calls) == len(asked) == len(set(asked.values())) == 60
    for line in results(client, ended(client, batch.id).output_file_id):
        assert line["response"]["request_id"] == asked[line["custom_id"]]
    assert 1 < gateway.at_once_max <= limits.LINES_AT_ONCE


def test_refused_lines_are_in_the_error_file_with_their_answers(
    client, start, gateway, organisation
):
    def answer(call: Call) -> Reply:
        if call.text == "broke":
            return refusal(402, "insufficient_quota", "no budget")
        if call.text == "bad":
            return refusal(400, "invalid_value", "bad value")
        return completion(call)

    gateway.answer = answer
    batch = start(
        request_line("a"), request_line("b", "broke"), request_line("c"), request_line("d", "bad")
    )
    drive(organisation, batch.id)
    done = ended(client, batch.id)
    assert done.status == "completed"
    assert done.request_counts.to_dict() == {"total": 4, "completed": 2, "failed": 2}
    assert [line["custom_id"] for line in results(client, done.output_file_id)] == ["a", "c"]
    errors = results(client, done.error_file_id)
    assert [
        (e["custom_id"], e["response"]["status_code"], e["response"]["body"]["error"]["code"])
        for e in errors
    ] == [("b", 402, "insufficient_quota"), ("d", 400, "invalid_value")]
    assert [e["error"] for e in errors] == [None, None]


def test_a_batch_whose_every_line_fails_is_completed_without_output(
    client, start, gateway, organisation
):
    gateway.answer = lambda call: refusal(400, "batch_not_offered", "not in batches")
    batch = start(request_line("a"))
    drive(organisation, batch.id)
    done = ended(client, batch.id)
    assert (done.status, done.output_file_id) == ("completed", None)
    assert len(results(client, done.error_file_id)) == 1


def test_a_bad_file_fails_the_batch_with_its_lines_named(client, start, gateway, organisation):
    batch = start(request_line("a"), request_line("a"), request_line("b", method="GET"))
    drive(organisation, batch.id)
    failed = ended(client, batch.id)
    assert (failed.status, failed.errors.object) == ("failed", "list")
    assert [(e.code, e.line, e.param) for e in failed.errors.data] == [
        ("duplicate_custom_id", 2, "custom_id"),
        ("invalid_method", 3, "method"),
    ]
    assert failed.failed_at is not None
    assert failed.request_counts.total == 0
    assert gateway.calls == []


BAD_BATCHES = [
    ({"endpoint": "/v1/responses"}, "endpoint"),
    ({"endpoint": None}, "endpoint"),
    ({"completion_window": "1h"}, "completion_window"),
    ({"input_file_id": 3}, "input_file_id"),
    ({"metadata": {"k": 1}}, "metadata"),
    ({"metadata": {"k" * 65: "v"}}, "metadata"),
    ({"metadata": {"k": "v" * 513}}, "metadata"),
    ({"metadata": {"k": "v\0"}}, "metadata"),
    ({"metadata": {str(number): "" for number in range(17)}}, "metadata"),
    ({"metadata": []}, "metadata"),
    ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "output_expires_after"),
    ({"output_expires_after": {"anchor": "now", "seconds": 3600}}, "output_expires_after"),
    ({"output_expires_after": 3600}, "output_expires_after"),
    ({"priority": 1}, "priority"),
]


def test_a_bad_batch_is_told_which_field_is_wrong(http, client):
    file = client.files.create(file=("f", jsonl(request_line("a"))), purpose="batch")
    good = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"}
    for changed, param in BAD_BATCHES:
        answer = http.post("/v1/batches", json=good | changed)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), changed


def test_a_body_that_is_no_json_object_is_told_so(http):
    for body in (b"", b"[]", b"{", b"\xff", b"[" * 50_000, b'"x"'):
        answer = http.post("/v1/batches", content=body)
        told = (answer.status_code, answer.json()["error"]["code"])
        assert told == (400, "invalid_json"), body[:9]
    assert http.post("/v1/batches", content=b"x" * 70_000).status_code == 413


def test_a_batch_reads_only_input_files_of_its_own_project(
    client, client_of, onboard, start, gateway, organisation
):
    globex = onboard("globex")
    theirs = client_of(globex).files.create(file=("f", b"{}"), purpose="batch").id
    for missing in (theirs, identifiers.shown(identifiers.FILE, uuid7()), "file-x"):
        with pytest.raises(openai.NotFoundError) as refused:
            client.batches.create(input_file_id=missing, endpoint=CHAT, completion_window="24h")
        assert refused.value.param == "input_file_id"
    batch = start(request_line("a"))
    drive(organisation, batch.id)
    output = ended(client, batch.id).output_file_id
    with pytest.raises(openai.BadRequestError, match="batch_output"):
        client.batches.create(input_file_id=output, endpoint=CHAT, completion_window="24h")


def test_another_tenants_batch_is_as_missing_as_one_that_never_was(
    client, client_of, onboard, start, gateway
):
    batch = start(request_line("a"))
    other = client_of(onboard("globex"))
    never = identifiers.shown(identifiers.BATCH, uuid7())
    for ask in (other.batches.retrieve, other.batches.cancel):
        told = []
        for batch_id in (batch.id, never):
            with pytest.raises(openai.NotFoundError) as missing:
                ask(batch_id)
            told.append(str(missing.value).replace(batch_id, "ID"))
        assert told[0] == told[1]
    assert list(other.batches.list()) == []
    assert [each.id for each in client.batches.list()] == [batch.id]


def test_batches_are_listed_newest_first_in_pages(client, start, gateway):
    made = [start(request_line("a")).id for _ in range(5)]
    assert [batch.id for batch in client.batches.list(limit=2)] == made[::-1]
    page = client.batches.list(limit=2, after=made[1])
    assert ([batch.id for batch in page.data], page.has_more) == ([made[0]], False)


def test_a_file_an_open_batch_reads_is_not_deleted(client, start, gateway, organisation):
    batch = start(request_line("a"))
    with pytest.raises(openai.ConflictError, match=batch.id) as refused:
        client.files.delete(batch.input_file_id)
    assert refused.value.response.headers["x-should-retry"] == "false"
    drive(organisation, batch.id)
    client.files.delete(batch.input_file_id)
    assert ended(client, batch.id).input_file_id == batch.input_file_id


def test_a_busy_answer_is_tried_again_and_is_no_result(
    client, start, gateway, organisation, monkeypatch
):
    seen: dict[str, int] = {}

    def answer(call: Call) -> Reply:
        with gateway.lock:
            seen[call.text] = seen.get(call.text, 0) + 1
        if seen[call.text] == 1 and call.text in ("b", "d"):
            status = 429 if call.text == "b" else 503
            return refusal(status, "later", "later", Retry_After="1")
        return completion(call)

    gateway.answer = answer
    batch = start(*(request_line(each, each) for each in "abcde"))
    with patience():
        drive(organisation, batch.id)
    done = ended(client, batch.id)
    assert done.request_counts.to_dict() == {"total": 5, "completed": 5, "failed": 0}
    lines = results(client, done.output_file_id)
    assert [line["custom_id"] for line in lines] == list("abcde")
    asked = [str(c.allowed.request_id) for c in gateway.calls if c.text in ("b", "d")]
    assert len(set(asked)) == 4  # a refusal is answered: the next attempt is another request
    assert {line["response"]["request_id"] for line in lines} == {
        str(request_id) for request_id in gateway.served
    }


@contextmanager
def patience() -> Iterator[None]:
    """A batch that rings for later is waited for, as the broker would."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doorbell, "ring", lambda *_, after_s=0.0: time.sleep(min(after_s, 8)))
        yield


def test_a_broken_answer_is_the_same_request_again(client, start, gateway, organisation):
    seen: list[str] = []

    def answer(call: Call) -> Reply:
        with gateway.lock:
            seen.append(call.text)
        if seen.count(call.text) == 1:
            gateway.served.setdefault(call.allowed.request_id, call)  # served, never told
            return Reply(0, b"")
        return completion(call)

    gateway.answer = answer
    batch = start(request_line("a", "a"), request_line("b", "b"))
    with patience():
        drive(organisation, batch.id)
    assert ended(client, batch.id).request_counts.completed == 2
    assert sorted(gateway.texts_served()) == ["a", "b"]
    assert len(gateway.calls) == 4


def test_a_gateway_that_is_away_is_waited_for(client, start, settings, organisation):
    port = free_port()
    settings.GATEWAY_INTERNAL_URL = f"http://127.0.0.1:{port}"
    batch = start(*(request_line(each) for each in "abc"))
    batch_id = row(organisation, batch.id).id
    advance(organisation.id, batch_id)
    with tenant_scope(organisation.id):
        assert (
            list(BatchLine.objects.values_list("status", "sent", "attempts"))
            == [("waiting", False, 0)] * 3
        )
    with running(port), patience():
        drive(organisation, batch.id)
    assert ended(client, batch.id).request_counts.completed == 3


def test_a_revoked_key_stops_the_batch_and_the_rest_is_told_why(
    client, client_of, start, gateway, organisation
):
    def answer(call: Call) -> Reply:
        if int(call.text) >= 20:
            return refusal(401, "invalid_api_key", "revoked")
        return completion(call)

    gateway.answer = answer
    batch = start(*(request_line(str(number), str(number)) for number in range(200)))
    drive(organisation, batch.id)
    done = ended(client, batch.id)
    assert (done.status, done.request_counts.total) == ("completed", 200)
    assert done.request_counts.completed == 20
    assert done.request_counts.failed == 180
    assert len(gateway.calls) < 60
    errors = results(client, done.error_file_id)
    assert [int(e["custom_id"]) for e in errors] == list(range(20, 200))
    assert errors[-1]["response"] is None
    assert errors[-1]["error"] == {"code": "invalid_api_key", "message": "revoked"}


def test_cancelling_ends_what_is_in_flight_and_runs_no_more(client, start, gateway, organisation):
    begun, go_on = threading.Semaphore(0), threading.Event()

    def answer(call: Call) -> Reply:
        begun.release()
        go_on.wait(20)
        return completion(call)

    gateway.answer = answer
    batch = start(*(request_line(str(number), str(number)) for number in range(100)))
    worker = threading.Thread(target=work_once, args=(organisation, batch.id))
    worker.start()
    for _ in range(limits.LINES_AT_ONCE):
        assert begun.acquire(timeout=20)
    assert ended(client, batch.id).status == "in_progress"
    cancelling = client.batches.cancel(batch.id)
    assert (cancelling.status, cancelling.cancelling_at is None) == ("cancelling", False)
    assert client.batches.cancel(batch.id).status == "cancelling"
    go_on.set()
    worker.join(30)
    cancelled = ended(client, batch.id)
    assert (cancelled.status, cancelled.cancelled_at is None) == ("cancelled", False)
    assert cancelled.request_counts.to_dict() == {
        "total": 100, "completed": limits.LINES_AT_ONCE, "failed": 0,
    }  # fmt: skip
    assert len(gateway.calls) == limits.LINES_AT_ONCE
    output = results(client, cancelled.output_file_id)
    assert [line["custom_id"] for line in output] == [str(n) for n in range(limits.LINES_AT_ONCE)]
    errors = results(client, cancelled.error_file_id)
    assert {e["error"]["code"] for e in errors} == {"batch_cancelled"}
    assert len(errors) == 100 - limits.LINES_AT_ONCE
    with pytest.raises(openai.ConflictError, match="cancelled"):
        client.batches.cancel(batch.id)


def work_once(organisation, shown: str) -> None:
    """Be a worker in a thread of one's own."""
    from django.db import connection

    try:
        advance(organisation.id, row(organisation, shown).id)
    finally:
        connection.close()


def test_a_batch_cancelled_before_it_was_read_has_no_files(client, start, gateway, organisation):
    batch = start(request_line("a"))
    assert client.batches.cancel(batch.id).status == "cancelling"
    drive(organisation, batch.id)
    cancelled = ended(client, batch.id)
    assert (cancelled.status, cancelled.output_file_id, cancelled.error_file_id) == (
        "cancelled", None, None,
    )  # fmt: skip
    assert gateway.calls == []


def test_a_batch_past_its_window_keeps_its_answers_and_names_the_rest(
    client, start, gateway, organisation, monkeypatch
):
    def answer(call: Call) -> Reply:
        time.sleep(0.05)
        return completion(call)

    gateway.answer = answer
    batch = start(*(request_line(str(number)) for number in range(200)))
    batch_id = row(organisation, batch.id).id
    validate(organisation.id, batch_id)
    execute.run_slice(organisation.id, batch_id, 0.05)
    so_far = ended(client, batch.id).request_counts
    assert 0 < so_far.completed < so_far.total
    with clock.frozen(clock.now() + timedelta(hours=24, seconds=1)):
        sweep.sweep()
        assert row(organisation, batch.id).status == "expiring"
        assert ended(client, batch.id).status == "finalizing"
        drive(organisation, batch.id)
    expired = ended(client, batch.id)
    assert (expired.status, expired.expired_at is None) == ("expired", False)
    assert expired.request_counts.completed == so_far.completed == len(gateway.calls)
    assert len(results(client, expired.output_file_id)) == so_far.completed
    errors = results(client, expired.error_file_id)
    assert {e["error"]["code"] for e in errors} == {"batch_expired"}
    assert len(errors) + so_far.completed == 200


def test_a_batch_nobody_read_for_a_day_expires(client, start, gateway, organisation):
    batch = start(request_line("a"))
    with clock.frozen(clock.now() + timedelta(hours=25)):
        sweep.sweep()
    assert ended(client, batch.id).status == "expired"


def test_a_line_of_unknown_fate_is_ended_not_begun_after_a_cancel(
    client, start, gateway, organisation
):
    """Its worker was killed: it may have been served, so it is asked for again, and told."""
    batch = start(*(request_line(each, each) for each in "abcdef"))
    batch_id = row(organisation, batch.id).id
    validate(organisation.id, batch_id)
    held = claim(organisation.id, batch_id, 2)
    client.batches.cancel(batch.id)
    advance(organisation.id, batch_id)
    assert row(organisation, batch.id).status == "cancelling"  # the lease is not over
    with clock.frozen(clock.now() + limits.LEASE):
        drive(organisation, batch.id)
    assert {call.allowed.request_id for call in gateway.calls} == {line.request_id for line in held}
    assert sorted(call.text for call in gateway.calls) == ["a", "b"]
    done = ended(client, batch.id)
    assert done.request_counts.to_dict() == {"total": 6, "completed": 2, "failed": 0}
    assert len(results(client, done.error_file_id)) == 4


def test_a_fate_that_stays_unknown_does_not_keep_a_batch_for_ever(
    client, start, settings, organisation
):
    settings.GATEWAY_INTERNAL_URL = f"http://127.0.0.1:{free_port()}"
    batch = start(*(request_line(each) for each in "abc"))
    batch_id = row(organisation, batch.id).id
    validate(organisation.id, batch_id)
    claim(organisation.id, batch_id, 1)
    client.batches.cancel(batch.id)
    with clock.frozen(clock.now() + limits.UNKNOWN_FATE_FOR + timedelta(seconds=1)):
        drive(organisation, batch.id)
    done = ended(client, batch.id)
    assert done.status == "cancelled"
    assert [e["error"]["code"] for e in results(client, done.error_file_id)] == [
        "no_answer", "batch_cancelled", "batch_cancelled",
    ]  # fmt: skip


def test_the_sweep_rings_once_for_a_batch_that_lost_its_doorbell(
    start, gateway, organisation, monkeypatch
):
    batch = start(request_line("a"))
    rung: list[object] = []
    monkeypatch.setattr(sweep.doorbell, "ring", lambda *ids: rung.append(ids))
    sweep.sweep()
    assert rung == []
    with clock.frozen(clock.now() + limits.QUIET_FOR):
        sweep.sweep()
        sweep.sweep()
    assert rung == [(organisation.id, row(organisation, batch.id).id)]


def test_an_input_that_cannot_be_read_fails_the_batch_or_its_lines(
    client, start, gateway, organisation
):
    before = start(request_line("a"))
    after = start(request_line("a"), request_line("b"))
    validate(organisation.id, row(organisation, after.id).id)
    for path in stored_files():
        path.unlink()
    drive(organisation, before.id)
    failed = ended(client, before.id)
    assert (failed.status, failed.errors.data[0].code) == ("failed", "file_unreadable")
    drive(organisation, after.id)
    errors = results(client, ended(client, after.id).error_file_id)
    assert [e["error"]["code"] for e in errors] == ["file_unreadable"] * 2


def test_an_organisation_has_so_many_open_batches(client, start, gateway, organisation):
    batch = row(organisation, start(request_line("a")).id)
    with tenant_scope(organisation.id):
        for _ in range(limits.OPEN_BATCHES_MAX - 1):
            batch.id = uuid7()
            batch.save(force_insert=True)
    with pytest.raises(openai.RateLimitError, match="not ended") as refused:
        start(request_line("a"))
    assert refused.value.response.headers["retry-after"] == "60"


def test_result_files_live_as_long_as_was_asked(client, start, gateway, organisation):
    batch = start(request_line("a"), output_expires_after={"anchor": "created_at", "seconds": 7200})
    drive(organisation, batch.id)
    output = client.files.retrieve(ended(client, batch.id).output_file_id)
    assert output.expires_at == output.created_at + 7200


def test_a_broker_that_is_away_takes_no_batch_from_anyone(
    web, client, organisation, monkeypatch, gateway
):
    """What was asked for is in the database; the sweep finds it."""

    def away(*_: object, **__: object) -> None:
        raise OSError("broker away")

    monkeypatch.setattr(doorbell.current_app, "send_task", away)
    doorbell.ring(organisation.id, uuid7())


def test_a_finish_that_was_killed_is_made_good(client, start, gateway, organisation):
    """The content was written, the transaction was not: the same files are written again."""
    batch = start(request_line("a"), request_line("b"))
    batch_id = row(organisation, batch.id).id
    validate(organisation.id, batch_id)
    execute.run_slice(organisation.id, batch_id)
    left = stored_files()[0].parent / row(organisation, batch.id).output_file_id.hex
    left.write_bytes(b"half a fi")
    finish(organisation.id, batch_id)
    assert len(results(client, ended(client, batch.id).output_file_id)) == 2
    assert len([path for path in stored_files() if path.stat().st_size]) == 2


@pytest.mark.parametrize("lines", [5_000, pytest.param(limits.LINES_MAX, marks=pytest.mark.long)])
def test_many_lines_become_rows_in_seconds(client, start, gateway, organisation, lines):
    content = jsonl(*(request_line(str(number)) for number in range(lines)))
    batch = start(content=content)
    batch_id = row(organisation, batch.id).id
    began = time.monotonic()
    validate(organisation.id, batch_id)
    took_s = time.monotonic() - began
    found = ended(client, batch.id)
    assert (found.status, found.request_counts.total) == ("in_progress", lines)
    print(f"validated {lines:,} lines in {took_s:.2f} s")
    client.batches.cancel(batch.id)
    began = time.monotonic()
    drive(organisation, batch.id)
    print(f"wrote {lines:,} error lines in {time.monotonic() - began:.2f} s")
    assert len(results(client, ended(client, batch.id).error_file_id)) == lines
