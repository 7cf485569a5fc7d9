"""Alerts are raised once per limit, window and threshold: from usage, a balance, and hits."""

import threading
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest
import redis as redis_client
from django.db import connections

from meterplane.contracts import admission_keys, windows
from meterplane.contracts.policy import Limit
from meterplane.kernel import clock
from meterplane.metering.ingest import ingest_segment
from meterplane.policy import alerts, limit_hits
from meterplane.policy.alerts import look_at, raise_alerts
from meterplane.policy.models import Alert
from tenants.limits import add_balance, raise_temporarily, set_balance_alert, set_limit
from tenants.models import SetBy
from tenants.rotate import rotate_key
from tenants.scoping import system_scope, tenant_scope
from tests import environment
from tests.metering.segments import message, settle
from tests.policy.test_budget_grants import take

pytestmark = pytest.mark.django_db(transaction=True)
TUESDAY = datetime(2026, 11, 3, 15, 20, tzinfo=UTC)


@pytest.fixture
def tuesday():
    with clock.frozen(TUESDAY):
        yield TUESDAY


@pytest.fixture
def admission(redis_url):
    with redis_client.Redis.from_url(redis_url) as connection:
        yield connection


def limited(tenant, kind="spend", window="month", amount=1000, *, level="organisation", **more):
    scope_id = more.pop("scope_id", tenant.id)
    mode = more.pop("mode", "notify")
    return set_limit(
        tenant_id=tenant.id, level=level, scope_id=scope_id, kind=kind, window=window,
        amount=amount, mode=mode, **more,
    )  # fmt: skip


def spend(tenant, cost_nano, at=None, **what):
    at_ms = None if at is None else clock.to_ms(at)
    event = settle(tenant, cost_nano=cost_nano, reserved_nano=cost_nano, at_ms=at_ms, **what)
    ingest_segment(message([event]))


ORDER = ["50", "80", "hit", "100", "balance"]


def raised(tenant):
    """By window and kind, then as they follow one another."""
    with tenant_scope(tenant.id):
        rows = list(Alert.objects.all())
    return sorted(rows, key=lambda row: (row.label, row.kind, ORDER.index(row.threshold)))


def told(tenant):
    return [(each.kind, each.label, each.threshold) for each in raised(tenant)]


def thresholds(tenant):
    return [each.threshold for each in raised(tenant)]


def key_of(tenant, kind, window, label=None, *, level="organisation", scope_id=None, model=""):
    limit = Limit(
        level=level, scope_id=scope_id or tenant.id, kind=kind, window=window, amount=0, model=model
    )
    return admission_keys.limit(tenant.id, limit, label or windows.label(window, clock.now()))


def hit(admission, tenant, key, count):
    admission.hincrby(admission_keys.hits(tenant.id), key, count)


@pytest.mark.parametrize("narrower", [SetBy.OPERATOR, SetBy.ORGANISATION])
def test_of_two_limits_of_one_name_it_is_told_of_the_one_that_holds(
    organisation, tuesday, narrower
):
    limited(organisation, amount=500)
    limited(organisation, amount=400, by=SetBy.ORGANISATION)
    limited(organisation, amount=100, by=narrower)
    spend(organisation, 80)
    raise_alerts()
    assert [(each.threshold, each.amount) for each in raised(organisation)] == [("80", 100)]


def test_each_threshold_is_told_when_it_is_reached_and_not_a_nano_earlier(organisation, tuesday):
    limited(organisation)
    for nano, expected in (
        (499, []),
        (1, ["50"]),
        (299, ["50"]),
        (1, ["50", "80"]),
        (199, ["50", "80"]),
        (1, ["50", "80", "100"]),
        (500, ["50", "80", "100"]),
    ):
        spend(organisation, nano)
        raise_alerts()
        assert thresholds(organisation) == expected
    last = raised(organisation)[-1]
    assert (last.used, last.amount, last.mode, last.hits) == (1000, 1000, "notify", 0)
    assert (last.raised_at, last.delivered_at) == (tuesday, None)


def test_every_window_and_level_is_told_of_its_own(organisation, tuesday):
    for window in ("day", "week", "month", "lifetime"):
        limited(organisation, window=window)
    limited(organisation, level="project", scope_id=organisation.project_id)
    limited(organisation, level="key", scope_id=organisation.key_id)
    limited(organisation, level="key_model", scope_id=organisation.key_id, model="tiny-lm")
    limited(organisation, level="key_model", scope_id=organisation.key_id, model="identity")
    spend(organisation, 1000)
    raise_alerts()
    assert sorted((e.level, e.label, e.model, e.threshold) for e in raised(organisation)) == [
        ("key", "2026-11", "", "100"),
        ("key_model", "2026-11", "tiny-lm", "100"),
        ("organisation", "2026-11", "", "100"),
        ("organisation", "2026-11-03", "", "100"),
        ("organisation", "2026-W45", "", "100"),
        ("organisation", "lifetime", "", "100"),
        ("project", "2026-11", "", "100"),
    ]


def test_quotas_of_a_day_are_told_from_what_was_metered(organisation, tuesday):
    limited(organisation, "requests", "day", 4)
    limited(organisation, "input_tokens", "day", 20)
    limited(organisation, "output_tokens", "day", 50)
    limited(organisation, "total_tokens", "day", 100)
    spend(organisation, 1, requests=3)  # three prompts of one request: admission counts one
    raise_alerts()
    assert told(organisation) == [("input_tokens", "2026-11-03", "50")]
    spend(organisation, 1)
    raise_alerts()
    assert told(organisation) == [
        ("input_tokens", "2026-11-03", "50"),
        ("input_tokens", "2026-11-03", "100"),
        ("output_tokens", "2026-11-03", "80"),
        ("requests", "2026-11-03", "50"),
        ("total_tokens", "2026-11-03", "50"),
    ]


def test_a_new_window_is_told_of_anew(organisation):
    for at, labels in (
        (TUESDAY, ["2026-11-03"]),
        (TUESDAY + timedelta(hours=2), ["2026-11-03"]),
        (TUESDAY + timedelta(days=1), ["2026-11-03", "2026-11-04"]),
    ):
        with clock.frozen(at):
            if at == TUESDAY:
                limited(organisation, window="day")
            spend(organisation, 1000)
            raise_alerts()
            assert [each.label for each in raised(organisation)] == labels


def test_usage_that_comes_in_after_midnight_is_told_of_its_day(organisation):
    midnight = datetime(2026, 11, 4, tzinfo=UTC)
    with clock.frozen(TUESDAY):
        limited(organisation, window="day")
    with clock.frozen(midnight + timedelta(minutes=1)):
        spend(organisation, 800, at=midnight - timedelta(minutes=1))
        raise_alerts()
        assert told(organisation) == [("spend", "2026-11-03", "80")]
        limited(organisation, window="day", amount=700)
        spend(organisation, 1, at=midnight - timedelta(minutes=1))
        raise_alerts()
        assert len(told(organisation)) == 1, "a limit that is new today says nothing of yesterday"


def test_a_raised_limit_tells_nothing_twice_and_a_lowered_one_what_is_new(organisation, tuesday):
    row = limited(organisation)
    spend(organisation, 800)
    raise_alerts()
    raise_temporarily(
        tenant_id=organisation.id, limit_id=row.id, amount=1600, until=tuesday + timedelta(hours=1)
    )
    raise_alerts()
    assert thresholds(organisation) == ["80"], "half of the raised limit was passed before"
    limited(organisation, amount=700)
    raise_alerts()
    assert thresholds(organisation) == ["80", "100"], "without a request in between"
    limited(organisation, amount=1000)
    spend(organisation, 10)
    raise_alerts()
    assert thresholds(organisation) == ["80", "100"]


def test_keys_of_one_rotation_share_their_alerts(organisation, tuesday):
    limited(organisation, level="key", scope_id=organisation.key_id)
    spend(organisation, 500)
    successor = rotate_key(tenant_id=organisation.id, key_id=organisation.key_id).key
    spend(organisation, 300, key_id=successor.id)
    raise_alerts()
    assert [(each.scope_id, each.threshold) for each in raised(organisation)] == [
        (organisation.key_id, "80")
    ]


def test_racing_evaluators_raise_once(organisation, tuesday):
    """Six at once, and those that did not wait for each other too: the row is the marker."""
    limited(organisation)
    limited(organisation, window="day")
    spend(organisation, 1000)
    barrier = threading.Barrier(6)

    def look() -> None:
        barrier.wait()
        look_at(organisation.id)
        connections.close_all()

    threads = [threading.Thread(target=look) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(told(organisation)) == [
        ("spend", "2026-11", "100"), ("spend", "2026-11-03", "100"),
    ]  # fmt: skip


def test_who_read_before_another_raised_raises_nothing_again(organisation, tuesday, monkeypatch):
    """The look of another worker, between what this one read and what it writes."""
    limited(organisation)
    spend(organisation, 1000)
    monkeypatch.setattr(alerts, "_LOCK_LOOK", "SELECT version FROM alert_look WHERE tenant_id = %s")
    row = alerts._row

    def after_another(*arguments):
        monkeypatch.setattr(alerts, "_row", row)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        return row(*arguments)

    def other() -> None:
        look_at(organisation.id)
        connections.close_all()

    look_at(organisation.id)
    monkeypatch.setattr(alerts, "_OPEN_LOOK", "SELECT %s::uuid, %s::timestamptz")
    with psycopg.connect(environment.database_url("postgres"), autocommit=True) as admin:
        admin.execute("DELETE FROM alert")
        admin.execute("UPDATE alert_look SET revision = 0")
    monkeypatch.setattr(alerts, "_row", after_another)
    look_at(organisation.id)
    assert thresholds(organisation) == ["100"]


def test_only_organisations_with_news_are_looked_at(onboard, monkeypatch, tuesday):
    acme, globex = onboard("acme"), onboard("globex")
    looked = []
    monkeypatch.setattr(
        alerts, "look_at", lambda tenant_id, swept: looked.append(tenant_id) or look_at(tenant_id)
    )

    def news():
        looked.clear()
        raise_alerts()
        return set(looked)

    assert news() == {acme.id, globex.id}
    assert news() == set()
    spend(acme, 1)
    assert news() == {acme.id}
    limited(globex)
    assert news() == {globex.id}
    assert news() == set()


def test_of_a_look_that_fails_nothing_is_noted_and_the_others_are_looked_at(
    onboard, monkeypatch, tuesday
):
    tenants = [onboard("acme"), onboard("globex")]
    for tenant in tenants:
        limited(tenant)
        spend(tenant, 1000)
    limits = alerts.shown_limits

    def failing(organisation, at):
        if organisation.slug == "acme":
            raise RuntimeError("planted")
        return limits(organisation, at)

    monkeypatch.setattr(alerts, "shown_limits", failing)
    raise_alerts()
    assert [thresholds(tenant) for tenant in tenants] == [[], ["100"]]
    monkeypatch.setattr(alerts, "shown_limits", limits)
    raise_alerts()
    assert [thresholds(tenant) for tenant in tenants] == [["100"], ["100"]]


def test_a_balance_below_its_floor_is_told_once_until_more_is_paid_in(organisation, tuesday):
    def pay_in(nano, reference):
        add_balance(tenant_id=organisation.id, nano=nano, reference=reference)

    def spent(nano):
        take(organisation.id, 10_000, nano, window="prepaid")
        spend(organisation, nano)
        raise_alerts()
        return [(each.label, each.used) for each in raised(organisation)]

    pay_in(1000, "first")
    assert spent(900) == [], "a hundred is left: not below a tenth"
    assert spent(1) == [("prepaid:1000", 901)]
    assert spent(1) == [("prepaid:1000", 901)]
    with clock.frozen(tuesday + timedelta(seconds=1)):
        pay_in(600, "second")  # 698 are left, and told below 60
    assert spent(600) == [("prepaid:1000", 901)]
    assert spent(39) == [("prepaid:1000", 901), ("prepaid:1600", 1541)]
    assert set(thresholds(organisation)) == {"balance"}


def test_an_organisation_chooses_its_floor(organisation, tuesday):
    add_balance(tenant_id=organisation.id, nano=1000, reference="first")
    set_balance_alert(tenant_id=organisation.id, nano=501)
    take(organisation.id, 1000, 500, window="prepaid")
    spend(organisation, 500)
    raise_alerts()
    assert thresholds(organisation) == ["balance"]
    set_balance_alert(tenant_id=organisation.id, nano=0)
    add_balance(tenant_id=organisation.id, nano=1, reference="second")
    take(organisation.id, 1001, 501, window="prepaid")
    spend(organisation, 501)
    raise_alerts()
    assert thresholds(organisation) == ["balance"], "never, as it was asked for"


def test_hits_of_rates_are_told_once_an_hour_with_their_count(organisation, admission):
    key = key_of(organisation, "requests", "minute")
    hour = datetime(2026, 11, 29, 11, 0, tzinfo=UTC)
    for minutes, count in ((5, 7), (59, 3), (61, 2)):
        with clock.frozen(hour + timedelta(minutes=minutes)):
            hit(admission, organisation, key, count)
            raise_alerts()
    assert [(e.label, e.threshold, e.hits, e.amount, e.used) for e in raised(organisation)] == [
        ("2026-11-29T11", "hit", 10, 6000, None), ("2026-11-29T12", "hit", 2, 6000, None),
    ]  # fmt: skip
    assert admission.keys("*hits*") == []


def test_hits_of_a_day_are_told_of_the_day_they_are_named_by(organisation, admission, tuesday):
    limited(organisation, "total_tokens", "day", 1000, mode="enforce")
    day = key_of(organisation, "total_tokens", "day")
    hit(admission, organisation, day, 2)
    hit(admission, organisation, key_of(organisation, "total_tokens", "day", "2026-11-02"), 1)
    raise_alerts()
    assert told(organisation) == [
        ("total_tokens", "2026-11-02", "hit"),
        ("total_tokens", "2026-11-03", "hit"),
    ]
    spend(organisation, 1, tokens_in=800, tokens_out=0)
    raise_alerts()
    assert told(organisation)[2:] == [("total_tokens", "2026-11-03", "100")]
    hit(admission, organisation, day, 5)
    raise_alerts()
    assert [(each.threshold, each.hits) for each in raised(organisation)[1:]] == [
        ("hit", 2), ("100", 5),
    ]  # fmt: skip


def test_a_budget_that_refuses_near_its_end_is_told_as_used_up(organisation, admission, tuesday):
    limited(organisation, amount=1000, mode="enforce")
    take(organisation.id, 1000, 1000, window="2026-11")
    pool = key_of(organisation, "spend", "month")
    spend(organisation, 100)
    hit(admission, organisation, pool, 1)
    raise_alerts()
    assert [(e.threshold, e.hits) for e in raised(organisation)] == [("hit", 1)]
    spend(organisation, 890)
    hit(admission, organisation, pool, 4)
    raise_alerts()
    assert [(e.threshold, e.hits, e.used) for e in raised(organisation)] == [
        ("hit", 1, 100), ("100", 4, 990),
    ]  # fmt: skip


def test_hits_of_a_limit_that_is_gone_are_told_too(organisation, admission, tuesday):
    hit(admission, organisation, key_of(organisation, "requests", "second"), 1)
    admission.hset(admission_keys.hits(organisation.id), "no limit", 1)
    raise_alerts()
    ((alert),) = raised(organisation)
    assert (alert.window, alert.hits, alert.amount, alert.mode) == ("second", 1, None, "")


def test_a_limit_of_a_model_with_a_colon_is_found_again(organisation):
    name = admission_keys.limit_named(
        key_of(
            organisation, "spend", "month", "2026-11", level="key_model",
            scope_id=UUID(int=7), model="a:b:c",
        )
    )  # fmt: skip
    assert name == ("key_model", UUID(int=7), "a:b:c", "spend", "month", "2026-11")
    for other in ("", "sweep", "mp:{x}:hits", "mp:{x}:limit:key:nobody:spend:month:2026-11:"):
        assert admission_keys.limit_named(other) is None


class Killed(BaseException):
    """A worker that is gone: nothing handles it."""


STEPS = ["taken", "noted", "raised", "committed", "forgotten"]


@pytest.mark.parametrize("step", STEPS)
def test_a_hit_is_counted_once_wherever_its_sweep_dies(
    organisation, admission, monkeypatch, tuesday, step
):
    key = key_of(organisation, "requests", "minute")
    hit(admission, organisation, key, 5)

    def dies_after(module, name):
        real = getattr(module, name)

        def dying(*arguments):
            real(*arguments)
            raise Killed

        monkeypatch.setattr(module, name, dying)

    match step:
        case "taken":
            dies_after(limit_hits, "take")
        case "noted":
            dies_after(alerts, "_limits")
        case "raised":
            monkeypatch.setattr(alerts, "_LOOKED", "SELECT 1/0, %s, %s, %s, %s")
        case "committed":
            dies_after(alerts, "look_at")
        case "forgotten":
            dies_after(limit_hits, "forget")
    if step == "raised":
        raise_alerts()
    else:
        with pytest.raises(Killed):
            raise_alerts()
    monkeypatch.undo()
    hit(admission, organisation, key, 2)  # meanwhile
    with clock.frozen(tuesday + timedelta(hours=3)):  # of the hour they were taken in
        raise_alerts()
        raise_alerts()
    assert sum(each.hits for each in raised(organisation)) == 7
    assert raised(organisation)[0].label == "2026-11-03T15"
    assert admission.keys("*hits*") == []


def test_a_slow_sweep_deletes_nothing_of_the_next_one(organisation, admission, tuesday):
    key = key_of(organisation, "requests", "minute")
    hit(admission, organisation, key, 5)
    slow = limit_hits.take(admission, organisation.id)
    raise_alerts()
    hit(admission, organisation, key, 2)
    following = limit_hits.take(admission, organisation.id)
    assert look_at(organisation.id, slow)
    limit_hits.forget(admission, organisation.id, slow)
    assert limit_hits.take(admission, organisation.id) == following
    raise_alerts()
    assert [each.hits for each in raised(organisation)] == [7]


def test_hits_that_were_taken_do_not_expire(organisation, admission):
    hit(admission, organisation, key_of(organisation, "requests", "minute"), 5)
    admission.expire(admission_keys.hits(organisation.id), 86_400)
    limit_hits.take(admission, organisation.id)
    assert admission.ttl(admission_keys.hits_swept(organisation.id)) == -1


def test_redis_away_delays_hits_and_nothing_else(organisation, admission, settings, tuesday):
    limited(organisation)
    spend(organisation, 500)
    hit(admission, organisation, key_of(organisation, "requests", "minute"), 5)
    url, settings.ADMISSION_REDIS_URL = settings.ADMISSION_REDIS_URL, "redis://127.0.0.1:9/0"
    raise_alerts()
    assert thresholds(organisation) == ["50"]
    settings.ADMISSION_REDIS_URL = url
    raise_alerts()
    assert thresholds(organisation) == ["50", "hit"]


def test_sweeps_that_are_long_over_are_forgotten(organisation, admission):
    def sweeps():
        with psycopg.connect(environment.database_url("postgres")) as admin:
            return admin.execute("SELECT count(*) FROM hit_sweep").fetchone()[0]

    for hours, left in ((0, 1), (23, 2), (25, 2)):
        with clock.frozen(TUESDAY + timedelta(hours=hours)):
            hit(admission, organisation, key_of(organisation, "requests", "minute"), 1)
            raise_alerts()
            assert sweeps() == left


def test_another_organisation_sees_none_and_nobody_writes_one(onboard, tuesday):
    acme, globex = onboard("acme"), onboard("globex")
    limited(acme)
    spend(acme, 1000)
    raise_alerts()
    assert (thresholds(acme), thresholds(globex)) == (["100"], [])
    for tenant, rows in ((acme, 1), (globex, 0)):
        with psycopg.connect(environment.database_url("meterplane_app")) as app:
            app.execute("SELECT set_config('app.tenant_id', %s, false)", [str(tenant.id)])
            assert app.execute("SELECT count(*) FROM alert").fetchone() == (rows,)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                app.execute("UPDATE alert SET hits = 0")
    with system_scope("test"):
        assert Alert.objects.count() == 1
