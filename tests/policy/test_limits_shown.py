"""What people are told of their limits: where each holds, who says so, what was spent."""

from datetime import UTC, datetime, timedelta

import pytest

from meterplane.kernel import clock
from meterplane.metering.ingest import ingest_segment
from meterplane.policy.limits_shown import shown_limits
from tenants.keys import issue_key, revoke_key
from tenants.limits import raise_temporarily, set_limit
from tenants.models import Organisation
from tenants.onboard import create_project
from tenants.rotate import rotate_key
from tenants.scoping import tenant_scope
from tests.metering.segments import message, settle
from tests.policy.test_budget_grants import take

pytestmark = pytest.mark.django_db
TUESDAY = datetime(2026, 11, 3, 15, 20, tzinfo=UTC)


def shown(tenant):
    with tenant_scope(tenant.id):
        return shown_limits(Organisation.objects.get())


def budget(tenant, level, scope_id, window="month", amount=1000, mode="notify", model=""):
    return set_limit(
        tenant_id=tenant.id, level=level, scope_id=scope_id, kind="spend", window=window,
        amount=amount, mode=mode, model=model,
    )  # fmt: skip


def spend(tenant, cost_nano, at=None, **who):
    at_ms = None if at is None else clock.to_ms(at)
    ingest_segment(
        message([settle(tenant, cost_nano=cost_nano, reserved_nano=cost_nano, at_ms=at_ms, **who)])
    )


def told(tenant):
    return {
        (scope.name, limit.level, limit.window): (limit.spent_nano, limit.left_nano)
        for scope in shown(tenant)
        for limit in scope.limits
        if limit.kind == "spend"
    }


def test_every_scope_is_told_with_its_own_limits_and_no_others(organisation):
    search = create_project(tenant_id=organisation.id, slug="search", name="Search")
    issue_key(tenant_id=organisation.id, project_id=search.id, name="indexer")
    budget(organisation, "project", search.id)
    scopes = shown(organisation)
    assert [(scope.level, scope.name) for scope in scopes] == [
        ("organisation", "Acme"), ("project", "Default"), ("key", "first key"),
        ("project", "Search"), ("key", "indexer"),
    ]  # fmt: skip
    assert [len(scope.limits) for scope in scopes] == [1, 0, 0, 1, 0]
    assert [limit.source for scope in scopes for limit in scope.limits] == ["plan", "override"]


def test_spend_is_told_of_the_scope_the_model_and_the_window(organisation):
    with clock.frozen(TUESDAY):
        search = create_project(tenant_id=organisation.id, slug="search", name="Search")
        other = issue_key(tenant_id=organisation.id, project_id=search.id, name="other").key
        elsewhere = {"project_id": search.id, "key_id": other.id}
        for window in ("day", "week", "month", "lifetime"):
            budget(organisation, "organisation", organisation.id, window)
        budget(organisation, "project", organisation.project_id)
        budget(organisation, "key", organisation.key_id)
        budget(organisation, "key_model", organisation.key_id, model="tiny-lm")
        spend(organisation, 1)
        spend(organisation, 10, model="identity")
        spend(organisation, 100, **elsewhere)
        spend(organisation, 1000, at=TUESDAY - timedelta(days=1))
        spend(organisation, 10_000, at=TUESDAY - timedelta(days=2))  # Sunday, of this month
        spend(organisation, 100_000, at=TUESDAY - timedelta(days=9))  # of the month before
        spent = {name: spent for name, (spent, _) in told(organisation).items()}
    assert spent == {
        ("Acme", "organisation", "day"): 111,
        ("Acme", "organisation", "week"): 1_111,
        ("Acme", "organisation", "month"): 11_111,
        ("Acme", "organisation", "lifetime"): 111_111,
        ("Default", "project", "month"): 11_011,
        ("first key", "key", "month"): 11_011,
        ("first key", "key_model", "month"): 11_001,
    }


def test_keys_of_one_rotation_are_told_once_with_what_all_of_them_spent(organisation):
    budget(organisation, "key", organisation.key_id)
    spend(organisation, 300)
    successor = rotate_key(tenant_id=organisation.id, key_id=organisation.key_id).key
    spend(organisation, 200, key_id=successor.id)
    keys = [scope for scope in shown(organisation) if scope.level == "key"]
    assert [(each.scope_id, each.limits[0].spent_nano) for each in keys] == [
        (organisation.key_id, 500)
    ]
    revoke_key(tenant_id=organisation.id, key_id=organisation.key_id)
    assert len(shown(organisation)) == 3
    revoke_key(tenant_id=organisation.id, key_id=successor.id)
    assert [scope.level for scope in shown(organisation)] == ["organisation", "project"]


@pytest.mark.django_db(transaction=True)
def test_a_budget_that_began_within_its_window_counts_from_when_it_began(onboard):
    """What was spent before there was a limit was granted by nobody."""
    organisation = onboard("acme")
    spend(organisation, 700)
    budget(organisation, "organisation", organisation.id, amount=1000, mode="enforce")
    assert told(organisation) == {("Acme", "organisation", "month"): (0, 1000)}
    take(organisation.id, 1000, 250, window=f"{clock.now():%Y-%m}")
    spend(organisation, 40)
    ((spent, left),) = told(organisation).values()
    assert 250 <= spent <= 740, "no more than was granted"
    assert left == 1000 - spent


def test_a_raise_is_told_while_it_lasts(organisation):
    row = budget(organisation, "organisation", organisation.id, amount=10)
    until = clock.now().replace(microsecond=0) + timedelta(hours=1)
    raise_temporarily(tenant_id=organisation.id, limit_id=row.id, amount=30, until=until)
    for instant, now, raised_until in (
        (until - timedelta(seconds=1), 30, until),
        (until, 10, None),
    ):
        with clock.frozen(instant):
            limit = shown(organisation)[0].limits[-1]
        assert (limit.amount, limit.amount_now, limit.raised_until) == (10, now, raised_until)
        assert limit.left_nano == now


def test_a_limit_that_is_lifted_is_told_so(organisation):
    set_limit(
        tenant_id=organisation.id, level="organisation", scope_id=organisation.id,
        kind="requests", window="minute", amount=None,
    )  # fmt: skip
    (limit,) = shown(organisation)[0].limits
    assert (limit.amount, limit.source, limit.left_nano) == (None, "override", None)
