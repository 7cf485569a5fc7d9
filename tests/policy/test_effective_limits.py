"""Plans, what is said otherwise at one scope, and what a key may then use."""

from datetime import timedelta
from uuid import UUID

import msgspec
import pytest

from billing.pricing.catalog_prices import publish_catalog_prices
from meterplane.catalog.sync import sync_catalog
from meterplane.contracts import policy as contract
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.policy.compile import recompile_everyone
from meterplane.policy.models import GatewayPolicy
from tenants import limits
from tenants.keys import issue_key
from tenants.models import Limit, Plan
from tenants.plans import set_plan_limits
from tenants.scoping import tenant_scope
from tests.policy.test_compile import CATALOG

pytestmark = pytest.mark.django_db


def policy_of(organisation, key_id=None) -> contract.KeyPolicy:
    with tenant_scope(organisation.id):
        row = GatewayPolicy.objects.get(key_id=key_id or organisation.key_id)
    return msgspec.convert(row.document, contract.KeyPolicy)


def said(organisation, key_id=None):
    """(level, kind, window, model) -> amount, in the order in which admission is told of them."""
    return {
        (each.level, each.kind, each.window, each.model): each.amount
        for each in policy_of(organisation, key_id).limits
    }


def limit(organisation, kind="requests", window="minute", amount=7, **more):
    values = {"level": "organisation", "scope_id": organisation.id} | more
    return limits.set_limit(
        tenant_id=organisation.id, kind=kind, window=window, amount=amount, **values
    )


STANDARD = {("organisation", "requests", "minute", ""): 6000}


def test_a_new_organisation_is_on_the_standard_plan(organisation):
    assert said(organisation) == STANDARD
    (rate,) = policy_of(organisation).limits
    assert (rate.burst, rate.mode, rate.scope_id) == (200, "enforce", organisation.id)


def test_a_limit_of_its_own_replaces_the_plans_and_gives_way_to_it_again(organisation):
    row = limit(organisation, amount=7, burst=3)
    assert said(organisation) == {("organisation", "requests", "minute", ""): 7}
    limit(organisation, amount=8)
    assert said(organisation) == {("organisation", "requests", "minute", ""): 8}
    limits.remove_limit(tenant_id=organisation.id, limit_id=row.id)
    assert said(organisation) == STANDARD
    limit(organisation, amount=None)
    assert said(organisation) == {}, "nothing limits it"


def test_a_plan_binds_whoever_is_on_it_when_the_call_returns(onboard):
    first, second = onboard("first"), onboard("second")
    gold = [
        {"level": "key", "kind": "concurrency", "window": "at_once", "amount": 5},
        {
            "level": "organisation",
            "kind": "spend",
            "window": "month",
            "amount": 9,
            "mode": "notify",
        },
    ]
    set_plan_limits(slug="gold", name="Gold", limits=gold)
    limits.set_plan(tenant_id=first.id, slug="gold")
    assert said(first) == {
        ("key", "concurrency", "at_once", ""): 5,
        ("organisation", "spend", "month", ""): 9,
    }
    assert policy_of(first).limits[0].scope_id == first.key_id, "each key by itself"
    before = policy_of(second)
    set_plan_limits(slug="gold", name="Gold", limits=gold[:1])
    assert list(said(first).values()) == [5]
    assert policy_of(second) == before
    limits.set_plan(tenant_id=first.id, slug=None)
    assert said(first) == {}
    with pytest.raises(CallerError, match="no plan 'tin'"):
        limits.set_plan(tenant_id=first.id, slug="tin")


def test_a_scopes_limit_binds_its_keys_only_and_money_comes_last(organisation):
    with tenant_scope(organisation.id):
        other = issue_key(
            tenant_id=organisation.id, project_id=organisation.project_id, name="other"
        ).key
    limit(organisation, "spend", "day", 5, level="key", scope_id=organisation.key_id)
    limit(organisation, "spend", "week", 6, level="project", scope_id=organisation.project_id)
    limit(
        organisation, "total_tokens", "day", 9, level="key_model", model="tiny-lm",
        scope_id=organisation.key_id,
    )  # fmt: skip
    assert said(organisation, other.id) == STANDARD | {("project", "spend", "week", ""): 6}
    assert list(said(organisation).items()) == [
        (("organisation", "requests", "minute", ""), 6000),
        (("key_model", "total_tokens", "day", "tiny-lm"), 9),
        (("key", "spend", "day", ""), 5),
        (("project", "spend", "week", ""), 6),
    ]


def test_a_raise_ends_by_itself(organisation):
    row = limit(organisation, amount=10)
    until = clock.now() + timedelta(hours=1)
    limits.raise_temporarily(tenant_id=organisation.id, limit_id=row.id, amount=20, until=until)
    (compiled,) = policy_of(organisation).limits
    end_ms = clock.to_ms(until)
    assert (compiled.amount_at(end_ms - 1), compiled.amount_at(end_ms)) == (20, 10)
    for amount, end, field in ((20, clock.now(), "until"), (10, until, "amount")):
        with pytest.raises(CallerError) as refused:
            limits.raise_temporarily(
                tenant_id=organisation.id, limit_id=row.id, amount=amount, until=end
            )
        assert refused.value.field == field


def test_a_balance_is_all_that_was_ever_paid_in(organisation):
    for nano, reference in ((5, "p1"), (7, "p2"), (5, "p1")):
        limits.add_balance(tenant_id=organisation.id, nano=nano, reference=reference)
    assert said(organisation)["organisation", "spend", "prepaid", ""] == 12
    with pytest.raises(CallerError, match="more than nothing"):
        limits.add_balance(tenant_id=organisation.id, nano=0, reference="p3")


def test_restrictions_of_all_levels_hold_together(organisation):
    sync_catalog(CATALOG)
    publish_catalog_prices(CATALOG)
    recompile_everyone()
    limits.set_restriction(
        tenant_id=organisation.id, level="organisation", scope_id=organisation.id,
        models=["tiny-lm", "identity"], surfaces=["openai.chat", "kserve.infer"],
        ip_ranges=["10.0.0.0/8", "2001:db8::/32"], request_tokens_max=1000,
    )  # fmt: skip
    limits.set_restriction(
        tenant_id=organisation.id, level="key", scope_id=organisation.key_id,
        models=["tiny-lm", "all-minilm-l6-v2"], surfaces=["openai.chat"],
        ip_ranges=["10.1.2.3/16", "192.0.2.0/24"], request_tokens_max=5000,
    )  # fmt: skip
    policy = policy_of(organisation)
    assert set(policy.models) == {"tiny-lm"}
    assert policy.surfaces == ["openai.chat"]
    assert policy.ip_ranges == ["10.1.0.0/16"]
    assert policy.request_tokens_max == 1000
    limits.set_restriction(
        tenant_id=organisation.id, level="key", scope_id=organisation.key_id, models=[]
    )
    assert policy_of(organisation).models == {}, "none is not all"
    for level, scope_id in (("key", organisation.key_id), ("organisation", organisation.id)):
        limits.set_restriction(tenant_id=organisation.id, level=level, scope_id=scope_id)
    policy = policy_of(organisation)
    assert (len(policy.models), policy.surfaces, policy.ip_ranges) == (3, None, None)


def test_who_is_served_first_is_compiled(organisation):
    limits.set_priority(tenant_id=organisation.id, priority="high", weight=3)
    policy = policy_of(organisation)
    assert (policy.priority, policy.weight) == ("high", 3)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"level": "planet"}, "level"),
        ({"kind": "colours"}, "kind"),
        ({"window": "month"}, "window"),
        ({"kind": "spend", "window": "minute"}, "window"),
        ({"kind": "spend", "window": "prepaid", "level": "project"}, "level"),
        ({"amount": -1}, "amount"),
        ({"amount": 10**12}, "amount"),
        ({"burst": 0}, "burst"),
        ({"kind": "spend", "window": "day", "burst": 5}, "burst"),
        ({"mode": "hope"}, "mode"),
        ({"model": "tiny-lm"}, "model"),
        ({"level": "key_model"}, "model"),
        ({"level": "key_model", "model": "tiny lm"}, "model"),
        ({"level": "project", "scope_id": UUID(int=5)}, "scope_id"),
        ({"scope_id": UUID(int=5)}, "scope_id"),
    ],
)
def test_a_limit_that_cannot_be_is_refused_by_its_field_and_changes_nothing(
    organisation, changed, field
):
    before = policy_of(organisation)
    with pytest.raises(CallerError) as refused:
        limit(organisation, **changed)
    assert refused.value.field == field
    with tenant_scope(organisation.id):
        assert not Limit.objects.exists()
    assert policy_of(organisation) == before


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"amount": None}, "Limit 2 needs an amount"),
        ({"amount": "5"}, "Limit 2: amount is a whole number"),
        ({"amount": True}, "Limit 2: amount is a whole number"),
        ({"colour": 1}, "unknown field 'colour'"),
        ({"window": "prepaid", "kind": "spend"}, "no plan gives one"),
        ({"window": "week"}, "Limit 2, window: A limit of requests is per second"),
        ({}, "says what another one says"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_by_the_limits_number(db, wrong, words):
    good = {"level": "organisation", "kind": "requests", "window": "minute", "amount": 5}
    with pytest.raises(CallerError, match=words):
        set_plan_limits(slug="odd", name="Odd", limits=[good, good | wrong])
    assert not Plan.objects.filter(slug="odd").exists()


def test_another_organisations_scopes_are_not_there(onboard):
    mine, other = onboard("mine"), onboard("other")
    with pytest.raises(CallerError) as refused:
        limit(mine, level="key", scope_id=other.key_id)
    assert refused.value.status == 404
    row = limit(other)
    with pytest.raises(CallerError, match="no such limit here"):
        limits.remove_limit(tenant_id=mine.id, limit_id=row.id)
