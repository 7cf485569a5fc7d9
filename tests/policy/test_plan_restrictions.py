"""What a plan restricts: replaced by what is said for the organisation, narrowed by all else."""

import pytest

from meterplane.kernel.errors import CallerError
from meterplane.policy.restrictions_shown import shown_restrictions
from tenants.limits import set_plan, set_restriction
from tenants.models import Organisation, Plan, SetBy
from tenants.plans import set_plan_limits
from tenants.scoping import tenant_scope
from tests.tenants.test_keys import compiled

pytestmark = pytest.mark.django_db
FREE = {
    "surfaces": ["openai.chat", "openai.embeddings"], "ip_ranges": ["10.0.0.0/8"],
    "request_tokens_max": 1000,
}  # fmt: skip


def free(**restrictions) -> Plan:
    return set_plan_limits(slug="free", name="Free", limits=[], restrictions=restrictions)


@pytest.fixture
def tenant(onboard):
    free(**FREE)
    made = onboard("acme")
    set_plan(tenant_id=made.id, slug="free")
    return made


def allowed(tenant):
    policy = compiled(tenant.id, tenant.key_id)
    return policy.surfaces, policy.ip_ranges, policy.request_tokens_max


def say(tenant, level="organisation", by=SetBy.OPERATOR, **values) -> None:
    scope_id = {"organisation": tenant.id, "project": tenant.project_id, "key": tenant.key_id}
    set_restriction(tenant_id=tenant.id, level=level, scope_id=scope_id[level], by=by, **values)


def test_whoever_is_on_it_is_bound_while_they_are_and_as_it_changes(tenant, onboard):
    assert allowed(tenant) == (["openai.chat", "openai.embeddings"], ["10.0.0.0/8"], 1000)
    assert allowed(onboard("beta")) == (None, None, None)
    free(request_tokens_max=2000)
    assert allowed(tenant) == (None, None, 2000)
    free()
    assert allowed(tenant) == (None, None, None)
    free(**FREE)
    set_plan(tenant_id=tenant.id, slug=None)
    assert allowed(tenant) == (None, None, None)


def test_what_the_operator_says_for_the_organisation_replaces_it_each_by_itself(tenant):
    say(tenant, request_tokens_max=9000, surfaces=["kserve.infer"])
    assert allowed(tenant) == (["kserve.infer"], ["10.0.0.0/8"], 9000)
    say(tenant)
    assert allowed(tenant) == (["openai.chat", "openai.embeddings"], ["10.0.0.0/8"], 1000)


@pytest.mark.parametrize(
    ("level", "by"),
    [
        ("project", SetBy.OPERATOR), ("key", SetBy.OPERATOR), ("organisation", SetBy.ORGANISATION),
        ("project", SetBy.ORGANISATION), ("key", SetBy.ORGANISATION),
    ],
)  # fmt: skip
def test_all_else_only_narrows_it(tenant, level, by):
    say(tenant, level, by, request_tokens_max=9000, surfaces=["openai.chat", "kserve.infer"],
        ip_ranges=["0.0.0.0/0"])  # fmt: skip
    assert allowed(tenant) == (["openai.chat"], ["10.0.0.0/8"], 1000)
    say(tenant, level, by, request_tokens_max=10, ip_ranges=["10.1.0.0/16", "192.0.2.0/24"])
    assert allowed(tenant)[1:] == (["10.1.0.0/16"], 10)


def test_of_the_models_it_names_those_are_left_that_every_level_allows(tenant):
    free(models=["a", "b"])
    say(tenant, "key", SetBy.ORGANISATION, models=["b", "c"])
    with tenant_scope(tenant.id):
        told = [(e.source, e.models) for e in shown_restrictions(Organisation.objects.get())]
    assert told == [("plan", ["a", "b"]), ("organisation", ["b", "c"])]


def test_what_of_it_is_replaced_is_not_shown_as_said_by_it(tenant):
    say(tenant, request_tokens_max=9000)
    with tenant_scope(tenant.id):
        plan, own = shown_restrictions(Organisation.objects.get())
    assert (plan.source, plan.request_tokens_max, plan.ip_ranges) == ("plan", None, ["10.0.0.0/8"])
    assert (own.source, own.request_tokens_max) == ("override", 9000)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"colours": []}, "There is no 'colours'"),
        ({"models": "tiny-lm"}, "models: Give a list of texts"),
        ({"models": ["two words"]}, "models: A model's name"),
        ({"models": [str(n) for n in range(1001)]}, "models: Name at most 1,000"),
        ({"surfaces": ["fax"]}, "surfaces: 'fax' is none of"),
        ({"surfaces": [3]}, "surfaces: Give a list of texts"),
        ({"ip_ranges": ["here"]}, "ip_ranges: 'here' is no address"),
        ({"request_tokens_max": 0}, "request_tokens_max: Allow 1 to"),
        ({"request_tokens_max": True}, "request_tokens_max: Give a whole number"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(tenant, wrong, words):
    before = allowed(tenant)
    with pytest.raises(CallerError, match=words) as refused:
        free(**wrong)
    assert refused.value.field == "restrictions"
    assert Plan.objects.get(slug="free").restrictions == FREE
    assert allowed(tenant) == before
