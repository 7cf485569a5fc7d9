"""What an organisation says of its own limits: less than its operator, never more, and only its."""

from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction

from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.policy.limits_shown import shown_limits
from tenants.limits import raise_temporarily, remove_limit, set_limit, set_plan, set_restriction
from tenants.models import Limit, Organisation, Restriction, SetBy
from tenants.plans import set_plan_limits
from tenants.queries import monthly_budget_nano
from tenants.rotate import rotate_key
from tenants.scoping import tenant_scope
from tests.tenants.test_keys import compiled

pytestmark = pytest.mark.django_db
LATER = timedelta(hours=1)


def limit(tenant, amount, by=SetBy.ORGANISATION, **more):
    values = {"level": "organisation", "scope_id": tenant.id, "kind": "requests",
              "window": "minute"} | more  # fmt: skip
    return set_limit(tenant_id=tenant.id, amount=amount, by=by, **values)


def held(tenant):
    return {
        f"{each.level} {each.kind} {each.window}": each.amount
        for each in compiled(tenant.id, tenant.key_id).limits
    }


def refusal(act, **values) -> tuple[str, str | None]:
    with pytest.raises(CallerError) as refused:
        act(**values)
    return refused.value.code, refused.value.field


@pytest.mark.parametrize(
    ("terms", "field"),
    [
        ({"amount": 6001}, "amount"),
        ({"amount": None}, "amount"),
        ({"amount": 10, "mode": "notify"}, "mode"),
        ({"amount": 10, "burst": 5}, "burst"),
        ({"amount": 10, "kind": "spend", "window": "prepaid"}, "window"),
    ],
)
def test_what_would_not_narrow_is_refused_at_its_field_and_changes_nothing(
    organisation, terms, field
):
    before = held(organisation)
    assert refusal(limit, tenant=organisation, **terms) == ("limit_invalid", field)
    with tenant_scope(organisation.id):
        assert not Limit.objects.exists()
    assert held(organisation) == before == {"organisation requests minute": 6000}


def test_an_own_limit_narrows_the_plans_and_ends_with_its_removal(organisation):
    row = limit(organisation, 50)
    assert held(organisation) == {"organisation requests minute": 50}
    remove_limit(tenant_id=organisation.id, limit_id=row.id, by=SetBy.ORGANISATION)
    assert held(organisation) == {"organisation requests minute": 6000}


def test_it_goes_on_narrowing_whatever_the_operator_says_afterwards(organisation):
    limit(organisation, 50)
    limit(organisation, 9000, by=SetBy.OPERATOR)
    assert held(organisation) == {"organisation requests minute": 50}
    limit(organisation, 30, by=SetBy.OPERATOR)
    assert held(organisation) == {"organisation requests minute": 30}
    assert refusal(limit, tenant=organisation, amount=31) == ("limit_invalid", "amount")
    limit(organisation, None, by=SetBy.OPERATOR)  # lifted
    assert held(organisation) == {"organisation requests minute": 50}
    set_plan(tenant_id=organisation.id, slug=None)
    assert held(organisation) == {"organisation requests minute": 50}


def test_a_plan_that_becomes_narrower_binds_whoever_had_more(organisation):
    limit(organisation, 5000)
    rate = {"level": "organisation", "kind": "requests", "window": "minute", "amount": 100}
    set_plan_limits(slug="standard", name="Standard", limits=[rate])
    assert held(organisation) == {"organisation requests minute": 100}


@pytest.mark.parametrize("level", ["project", "key", "key_model"])
def test_a_plans_limit_of_another_level_is_no_bound_of_this_one(organisation, level):
    scope_id = organisation.project_id if level == "project" else organisation.key_id
    model = "tiny-lm" if level == "key_model" else ""
    limit(organisation, 7000, level=level, scope_id=scope_id, model=model)
    assert held(organisation)[f"{level} requests minute"] == 7000


def test_what_the_operator_set_is_not_the_organisations_to_change(organisation):
    theirs = limit(organisation, 100, by=SetBy.OPERATOR)
    mine = {"tenant_id": organisation.id, "limit_id": theirs.id, "by": SetBy.ORGANISATION}
    assert refusal(remove_limit, **mine) == ("limit_not_yours", None)
    more = {"amount": 200, "until": clock.now() + LATER}
    assert refusal(raise_temporarily, **mine, **more) == ("limit_not_yours", None)
    assert held(organisation) == {"organisation requests minute": 100}
    limit(organisation, 10)
    with tenant_scope(organisation.id):
        assert sorted(Limit.objects.values_list("set_by", "amount")) == [
            ("operator", 100), ("organisation", 10),
        ]  # fmt: skip


def test_an_own_limit_is_raised_for_a_time_within_the_operators(organisation):
    row = limit(organisation, 50)
    mine = {"tenant_id": organisation.id, "limit_id": row.id, "by": SetBy.ORGANISATION}
    until = clock.now() + LATER
    assert refusal(raise_temporarily, **mine, amount=6001, until=until) == (
        "limit_invalid",
        "amount",
    )
    raise_temporarily(**mine, amount=80, until=until)
    (rate,) = compiled(organisation.id, organisation.key_id).limits
    assert [rate.amount_at(clock.to_ms(at)) for at in (clock.now(), until)] == [80, 50]


@pytest.mark.parametrize(
    "change", [{"amount": None}, {"burst": 5}, {"kind": "spend", "window": "prepaid"},
               {"set_by": "nobody"}]
)  # fmt: skip
def test_the_database_refuses_an_own_limit_that_could_loosen(organisation, change):
    values = {"level": "organisation", "scope_id": organisation.id, "kind": "requests",
              "window": "minute", "amount": 5, "set_by": "organisation"} | change  # fmt: skip
    with (
        tenant_scope(organisation.id),
        pytest.raises(IntegrityError, match="tenant_limit_own_narrows"),
        transaction.atomic(),
    ):
        Limit.objects.create(tenant_id=organisation.id, **values)


def test_the_months_budget_is_the_smaller_one(organisation):
    spend = {"kind": "spend", "window": "month"}
    for by, amount, least in (
        (SetBy.ORGANISATION, 9, 9), (SetBy.OPERATOR, 20, 9), (SetBy.OPERATOR, 5, 5),
        (SetBy.OPERATOR, None, 9),
    ):  # fmt: skip
        limit(organisation, amount, by=by, **spend)
        with tenant_scope(organisation.id):
            assert monthly_budget_nano(Organisation.objects.get()) == least


def test_both_are_told_with_whose_they_are(organisation):
    limit(organisation, 5000, by=SetBy.OPERATOR)
    limit(organisation, 50)
    with tenant_scope(organisation.id):
        told = [(e.source, e.amount) for e in shown_limits(Organisation.objects.get())[0].limits]
    assert told == [("override", 5000), ("organisation", 50)]


def test_own_restrictions_narrow_and_the_operators_stay(organisation):
    where = {"tenant_id": organisation.id, "level": "key", "scope_id": organisation.key_id}
    set_restriction(**where, surfaces=["openai.chat", "kserve.infer"], request_tokens_max=100)
    mine = where | {"by": SetBy.ORGANISATION}
    set_restriction(**mine, surfaces=["openai.chat", "grpc.infer"], request_tokens_max=5000)
    policy = compiled(organisation.id, organisation.key_id)
    assert (policy.surfaces, policy.request_tokens_max) == (["openai.chat"], 100)
    successor = rotate_key(tenant_id=organisation.id, key_id=organisation.key_id).key
    policy = compiled(organisation.id, successor.id)
    assert (policy.surfaces, policy.request_tokens_max) == (["openai.chat"], 100)
    set_restriction(**mine)
    policy = compiled(organisation.id, organisation.key_id)
    assert (policy.surfaces, policy.request_tokens_max) == (["kserve.infer", "openai.chat"], 100)
    with tenant_scope(organisation.id):
        assert Restriction.objects.filter(set_by="organisation").count() == 1  # the successor's


def test_there_is_an_end_to_how_many_an_organisation_sets(organisation, monkeypatch):
    monkeypatch.setattr("tenants.own_limits.OWN_LIMITS_MAX", 1)
    limit(organisation, 50)
    limit(organisation, 40)
    assert refusal(limit, tenant=organisation, amount=5, window="day") == ("too_many_limits", None)
    limit(organisation, 5, window="day", by=SetBy.OPERATOR)
    assert held(organisation) == {
        "organisation requests minute": 40,
        "organisation requests day": 5,
    }
