"""An operator sees whether metering adds up, what is behind, and what was set aside."""

from datetime import timedelta

from django.db import connection
from django.urls import reverse

from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from meterplane.metering.ingest import ingest_segment
from meterplane.metering.models import CanaryRun, Reconciliation, UsageQuarantine
from tenants.scoping import system_scope
from tests.metering.segments import message, settle

VERDICTS, IN_FULL = "console:reconciliation", "console:reconciliation_hour"
JOURNALS = "console:journals"
QUARANTINE = "console:metering_usagequarantine_changelist"
CANARY = "console:metering_canaryrun_changelist"
HOUR = clock.now().replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)


def verdict(verdict: str, *, model="tiny-lm", server="*", hour=HOUR, **changes: object):
    values: dict[str, object] = {
        "journal": 3, "events": 3, "rolled_up": 3, "missing": [], "missing_count": 0, "extra": [],
        "extra_count": 0, "reason": "", "at": clock.now(),
    }  # fmt: skip
    with system_scope("test"):
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO reconciliation_hour (hour) VALUES (%s) ON CONFLICT DO NOTHING", [hour]
            )
        return Reconciliation.objects.create(
            hour=hour, model=model, server=server, verdict=verdict, **(values | changes)
        )


def test_pages_without_rows_say_what_they_would_show(operator):
    assert "Nothing was reconciled yet" in operator.get(reverse(VERDICTS)).text
    assert "No hour failed" in operator.get(reverse(VERDICTS) + "?verdict=fail").text
    page = operator.get(reverse(JOURNALS)).text
    assert "No journal is known" in page
    assert "No segment was taken in" in page
    first = operator.get(reverse("console:index")).text
    for said in ("no hour yet", "usage that ingest set aside", "no run yet"):
        assert said in first, said


def test_verdicts_are_listed_filtered_and_shown_in_full(operator, organisation):
    event = settle(organisation)
    ingest_segment(message([event]))
    verdict("pass", model="identity", triton=2, triton_low=1, triton_high=4, server="http://t:1")
    verdict(
        "fail", journal=4, missing=[event.request_id], missing_count=3, reason="3 requests <b> are"
    )
    verdict("open", model="other", reason="nobody looked", hour=HOUR - timedelta(hours=1))
    page = operator.get(reverse(VERDICTS)).text
    for said in ("identity", "2 in 1 to 4", "all servers", "nobody looked", "&lt;b&gt;"):
        assert said in page, said
    failed = operator.get(reverse(VERDICTS) + "?verdict=fail").text
    assert "tiny-lm" in failed
    assert "nobody looked" not in failed
    where = {"hour": HOUR.isoformat(), "model": "tiny-lm", "server": "*"}
    row = operator.get(reverse(IN_FULL), where)
    assert "3 in all" in row.text
    link = f"{reverse('console:usage_events')}?request={event.request_id}"
    assert link in row.text
    found = operator.get(link).text
    assert str(event.request_id) in found
    assert "Acme" in found
    assert operator.get(reverse(IN_FULL), where | {"model": "none"}).status_code == 404
    assert operator.get(reverse(IN_FULL), where | {"hour": "yesterday"}).status_code == 404


def test_a_long_list_goes_on_at_a_whole_hour(operator, monkeypatch):
    from meterplane.console import reconciled

    monkeypatch.setattr(reconciled, "ROWS_SHOWN", 3)
    for n in range(3):
        for model in ("a-lm", "b-lm"):
            verdict("pass", model=model, hour=HOUR - n * timedelta(hours=1))
    first = operator.get(reverse(VERDICTS))
    seen = [f"{HOUR - n * timedelta(hours=1):%Y-%m-%d %H:%M}" for n in range(3)]
    assert seen[0] in first.text
    assert seen[1] not in first.text
    second = operator.get(first.context["older_url"]).text
    assert seen[0] not in second
    assert seen[1] in second


def test_the_first_page_shows_in_red_what_is_wrong(operator):
    verdict("pass")
    calm = operator.get(reverse("console:index")).text
    assert "Pass, " in calm
    assert "do not add up" not in calm
    verdict("fail", model="identity", reason="x")
    with system_scope("test"):
        UsageQuarantine.objects.create(
            id=uuid7(), segment_id=uuid7(), reason="x", payload=b"x", quarantined_at=clock.now()
        )
        CanaryRun.objects.create(finished_at=clock.now(), passed=False)
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO journal_watermark VALUES (%s, 'host-7', now() - interval '3 h',"
                " now() - interval '2 h')", [uuid7()],
            )  # fmt: skip
    page = operator.get(reverse("console:index")).text
    for said in ("1 of the last day", "billed to nobody", "journals are behind", "chain is broken"):
        assert said in page, said
    journals = operator.get(reverse(JOURNALS)).text
    for said in ("host-7", "3 h", "silent for 2 h"):
        assert said in journals, said


def test_what_was_set_aside_is_read_and_never_changed(operator, organisation):
    refused = settle(organisation, cost_nano=2, reserved_nano=1)
    ingest_segment(message([refused]))
    page = operator.get(reverse(QUARANTINE)).text
    assert "costs more than was reserved" in page
    assert "costs more" not in operator.get(reverse(QUARANTINE) + "?reason=damaged").text
    assert "costs more" in operator.get(reverse(QUARANTINE) + "?reason=other").text
    with system_scope("test"):
        row = UsageQuarantine.objects.get()
    address = reverse("console:metering_usagequarantine_change", args=[row.pk])
    shown = operator.get(address).text
    assert str(refused.request_id) in shown  # decoded
    assert "0000  " in shown  # and as it is
    assert operator.post(address, {"reason": "fine"}).status_code == 403
    chosen = {"action": "delete_selected", "_selected_action": [str(row.pk)], "post": "yes"}
    operator.post(reverse(QUARANTINE), chosen)
    with system_scope("test"):
        assert UsageQuarantine.objects.count() == 1


def test_what_cannot_be_decoded_is_shown_as_bytes(operator):
    from meterplane.console.quarantined import decoded, dump

    assert decoded(b"\xc1\xff") is None
    assert "hello" in dump(b"\x00hello")
    assert dump(bytes(10_000)).count("\n") == 31


def test_runs_of_the_canary_are_listed_with_their_steps(operator):
    steps = [
        {"name": "answers", "passed": True, "said": "3 models answered"},
        {"name": "events", "passed": False, "said": "no event of <1>"},
    ]
    with system_scope("test"):
        run = CanaryRun.objects.create(finished_at=clock.now(), passed=False, steps=steps)
        CanaryRun.objects.create()
    page = operator.get(reverse(CANARY)).text
    for said in ("failed: events", "Failed", "Under way"):
        assert said in page, said
    one = operator.get(reverse("console:metering_canaryrun_change", args=[run.pk])).text
    assert "no event of &lt;1&gt;" in one
