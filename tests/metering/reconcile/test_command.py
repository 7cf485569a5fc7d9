"""`manage.py reconcile` prints the verdicts, and fails when one does."""

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from meterplane.metering.reconcile.hours import reconcile
from tests.metering.reconcile import world
from tests.metering.reconcile.world import HTTP, as_owner, event, looked_each_minute, taken_in

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def hour(acme):
    hour = world.last_hour()
    taken_in(event(acme, hour + world.MINUTE, tags={"team": "x"}))
    looked_each_minute(hour, {"tiny-lm": 1})
    return hour


def test_verdicts_are_printed_and_a_failure_is_an_exit(hour, capsys):
    call_command("reconcile", "--hour", f"{hour:%Y-%m-%dT%H:%M}")
    told = capsys.readouterr().out
    assert HTTP in told
    assert "2 add up, 0 are open." in told
    as_owner("UPDATE usage_day SET requests = requests + 1")
    with pytest.raises(CommandError, match="1 of 2 do not add up"):
        call_command("reconcile", "--hour", f"{hour:%Y-%m-%dT%H}")
    assert "usage_day of organisation" in capsys.readouterr().out


def test_an_organisations_sums_are_held_to_its_events_alone(hour, onboard, capsys):
    other = onboard("globex")
    taken_in(event(other, hour + world.MINUTE))
    as_owner("UPDATE usage_hour SET requests = requests + 1 WHERE tenant_id = %s", other.id)
    call_command("reconcile", "--organisation", "acme")
    assert "agree" in capsys.readouterr().out
    with pytest.raises(CommandError, match="do not add up"):
        call_command("reconcile", "--organisation", "globex", "--hour", f"{hour:%Y-%m-%dT%H}")
    with pytest.raises(CommandError, match="no organisation"):
        call_command("reconcile", "--organisation", "nobody")


@pytest.mark.parametrize("text", ["yesterday", "2020-01-01T00", "2999-01-01T00"])
def test_an_hour_that_cannot_be_looked_at_is_refused(hour, text):
    with pytest.raises(CommandError, match="hour"):
        call_command("reconcile", "--hour", text)


def test_hours_are_opened_as_they_end_and_caught_up(hour):
    """Nobody ran for three hours in which nothing was used."""
    as_owner("INSERT INTO reconciliation_hour (hour) VALUES (%s)", hour - 4 * world.HOUR)
    assert reconcile() >= 4
    waiting = world.asked("SELECT hour FROM reconciliation_hour WHERE due_at <= now()")
    assert waiting == []
    done = {at for (at,) in world.asked("SELECT hour FROM reconciliation_hour")}
    assert {hour - n * world.HOUR for n in range(5)} <= done
    assert reconcile() == 0


def test_what_is_old_is_forgotten_and_what_is_needed_is_kept(hour):
    from datetime import timedelta

    from meterplane.metering.reconcile.forget import forget_what_is_old

    reconcile()
    old = hour - timedelta(days=2)
    looked_each_minute(old, {"tiny-lm": 1})
    looked_each_minute(hour - timedelta(days=36), {"tiny-lm": 1})
    as_owner("INSERT INTO reconciliation_hour (hour) VALUES (%s)", hour - timedelta(days=401))
    as_owner(
        "INSERT INTO canary_run (id, started_at)"
        " VALUES (gen_random_uuid(), now() - interval '36 d')"
    )
    forget_what_is_old()
    [(thinned,)] = world.asked(
        "SELECT count(DISTINCT at) FROM triton_counter WHERE at < %s", hour - world.HOUR
    )
    assert 13 <= thinned <= 14
    [(whole,)] = world.asked(
        "SELECT count(DISTINCT at) FROM triton_counter WHERE at >= %s", hour - world.HOUR
    )
    assert whole == 63
    assert world.asked("SELECT count(*) FROM canary_run") == [(0,)]
    as_owner("INSERT INTO reconciliation_hour (hour) VALUES (%s)", old)
    rows = world.reconciled(old)
    assert rows["tiny-lm", HTTP].triton == 1  # thinned looks still tell the hour
    assert "fewer" not in rows["tiny-lm", HTTP].reason
