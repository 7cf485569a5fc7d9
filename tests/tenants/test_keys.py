"""Issuing, revoking and onboarding: all or nothing, and obeyed at once."""

from datetime import timedelta

import pytest
import redis
from django.conf import settings

from meterplane.contracts import admission_keys, api_key, policy
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.kernel.ids import uuid7
from meterplane.policy.models import GatewayPolicy
from meterplane.policy.publish import admission_redis
from tenants.keys import (
    issue_key,
    issue_operator_key,
    operator_key_by_secret,
    revoke_key,
)
from tenants.models import ApiKey, Organisation
from tenants.onboard import add_member, create_organisation, create_project
from tenants.queries import memberships_of
from tenants.scoping import system_scope, tenant_scope
from tenants.standing import set_standing

pytestmark = pytest.mark.django_db


def compiled(tenant_id, key_id) -> policy.KeyPolicy:
    import msgspec

    with tenant_scope(tenant_id):
        row = GatewayPolicy.objects.get(key_id=key_id)
    return msgspec.convert(row.document, policy.KeyPolicy)


def test_a_secret_is_stored_as_its_digest_only(organisation):
    with tenant_scope(organisation.id):
        row = ApiKey.objects.get(id=organisation.key_id)
    assert bytes(row.digest) == api_key.digest(organisation.secret, settings.API_KEY_PEPPER)
    assert row.last4 == organisation.secret[-4:]


def test_a_key_is_compiled_in_the_transaction_that_makes_it(organisation):
    document = compiled(organisation.id, organisation.key_id)
    assert document.tenant_id == organisation.id
    assert document.status == "active"
    assert document.version > 0


def test_revoking_raises_the_version_and_repeating_it_changes_nothing(organisation):
    before = compiled(organisation.id, organisation.key_id)
    revoke_key(tenant_id=organisation.id, key_id=organisation.key_id)
    after = compiled(organisation.id, organisation.key_id)
    assert (after.status, after.version > before.version) == ("revoked", True)
    revoke_key(tenant_id=organisation.id, key_id=organisation.key_id)
    assert compiled(organisation.id, organisation.key_id) == after


@pytest.mark.django_db(transaction=True)
def test_when_revoke_returns_the_gateways_have_been_told(organisation, redis_url):
    revoke_key(tenant_id=organisation.id, key_id=organisation.key_id)
    version = compiled(organisation.id, organisation.key_id).version
    with redis.Redis.from_url(redis_url) as admission:
        told = admission.get(admission_keys.version(organisation.id, organisation.key_id))
    assert int(told) == version


@pytest.mark.django_db(transaction=True)
def test_a_version_is_only_ever_raised(organisation, redis_url):
    from meterplane.policy.publish import publish_versions

    key = admission_keys.version(organisation.id, organisation.key_id)
    with redis.Redis.from_url(redis_url) as admission:
        admission.set(key, 10**9)
        publish_versions(organisation.id, {organisation.key_id: 5})
        assert int(admission.get(key)) == 10**9


@pytest.mark.django_db(transaction=True)
def test_a_redis_that_is_new_is_told_what_is_current_however_late_the_call(organisation, redis_url):
    """A change that is told late, after a newer one was told to a Redis that is gone since."""
    from meterplane.policy.publish import publish_versions

    names = [
        admission_keys.version(organisation.id, organisation.key_id),
        admission_keys.epoch(organisation.id),
    ]
    late = compiled(organisation.id, organisation.key_id).version
    revoke_key(tenant_id=organisation.id, key_id=organisation.key_id)
    with redis.Redis.from_url(redis_url) as admission:
        before = admission.mget(names)
        admission.flushall()
        publish_versions(organisation.id, {organisation.key_id: late})
        after = admission.mget(names)
    assert int(after[0]) == compiled(organisation.id, organisation.key_id).version > late
    assert after[1] not in (None, before[1])


@pytest.mark.django_db(transaction=True)
def test_a_redis_that_is_lost_while_it_is_told_is_told_again(organisation, redis_url, monkeypatch):
    from meterplane.policy import publish

    stored, reads = publish._stored, []

    def losing(tenant_id, versions):
        found = stored(tenant_id, versions)
        reads.append(found)
        if len(reads) == 1:  # it forgets its epoch: what was read in it counts no more
            revoke_key(tenant_id=organisation.id, key_id=organisation.key_id)
            admission.flushall()
        return found

    with redis.Redis.from_url(redis_url) as admission:
        admission.flushall()
        late = compiled(organisation.id, organisation.key_id).version
        monkeypatch.setattr(publish, "_stored", losing)
        publish.publish_versions(organisation.id, {organisation.key_id: late})
        told = admission.get(admission_keys.version(organisation.id, organisation.key_id))
    assert int(told) == compiled(organisation.id, organisation.key_id).version > late


@pytest.mark.django_db(transaction=True)
def test_revoking_with_redis_down_says_so_and_is_stored(organisation, settings, monkeypatch):
    monkeypatch.setattr("meterplane.policy.publish.PATIENCE_S", 0.2)
    settings.ADMISSION_REDIS_URL = "unix:///nonexistent.sock"
    admission_redis.cache_clear()
    with pytest.raises(WorldError, match="could not be told"):
        revoke_key(tenant_id=organisation.id, key_id=organisation.key_id)
    admission_redis.cache_clear()
    assert compiled(organisation.id, organisation.key_id).status == "revoked"


def test_a_suspended_organisation_suspends_every_key_and_comes_back(organisation):
    set_standing(tenant_id=organisation.id, standing="suspended", reason="unpaid")
    document = compiled(organisation.id, organisation.key_id)
    assert (document.status, document.status_reason) == ("suspended", "unpaid")
    set_standing(tenant_id=organisation.id, standing="active", reason="")
    assert compiled(organisation.id, organisation.key_id).status == "active"
    assert not set_standing(tenant_id=organisation.id, standing="active", reason="")


def test_budgets_of_all_three_levels_are_compiled(onboard):
    made = onboard("acme", monthly_budget_nano=5_000_000_000)
    with tenant_scope(made.id):
        issued = issue_key(
            tenant_id=made.id, project_id=made.project_id, name="capped", monthly_budget_nano=7
        )
    limits = compiled(made.id, issued.key.id).limits
    budgets = {each.level: each.amount for each in limits if each.kind == "spend"}
    assert budgets == {"key": 7, "organisation": 5_000_000_000}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"name": "  "}, "name_required"),
        ({"name": "x" * 81}, "name_required"),
        ({"project_id": uuid7()}, "project_not_found"),
        ({"expires_at": clock.now() - timedelta(days=1)}, "expiry_in_past"),
    ],
)
def test_a_key_that_cannot_be_is_refused_with_its_reason(organisation, change, code):
    wanted = {"tenant_id": organisation.id, "project_id": organisation.project_id, "name": "k"}
    with pytest.raises(CallerError) as refused:
        issue_key(**(wanted | change))
    assert refused.value.code == code


def test_another_tenants_key_is_not_found(onboard):
    acme, globex = onboard("acme"), onboard("globex")
    with pytest.raises(CallerError) as refused:
        revoke_key(tenant_id=acme.id, key_id=globex.key_id)
    assert (refused.value.code, refused.value.status) == ("key_not_found", 404)
    assert compiled(globex.id, globex.key_id).status == "active"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"slug": "no spaces"}, "slug_invalid"),
        ({"slug": "acme"}, "slug_taken"),
        ({"owner_email": "nobody"}, "email_invalid"),
        ({"currency": "XXX"}, "currency_unknown"),
    ],
)
def test_onboarding_is_all_or_nothing(organisation, change, code):
    wanted = {"slug": "new", "name": "New", "owner_email": "a@new.example", "owner_password": "p"}
    with pytest.raises(CallerError) as refused:
        create_organisation(**(wanted | change))
    assert refused.value.code == code
    with system_scope("test"):
        assert Organisation.objects.count() == 1


def test_a_user_may_belong_to_several_organisations(onboard):
    acme, globex = onboard("acme"), onboard("globex")
    add_member(tenant_id=globex.id, email=acme.owner.email, password="-", role="viewer")
    assert [(m.slug, m.role) for m in memberships_of(acme.owner.pk)] == [
        ("acme", "owner"),
        ("globex", "viewer"),
    ]
    with pytest.raises(CallerError, match="owner, admin"):
        add_member(tenant_id=globex.id, email="x@y.example", password="-", role="king")


def test_projects_have_a_slug_each(organisation):
    create_project(tenant_id=organisation.id, slug="search", name="Search")
    with pytest.raises(CallerError, match="search"):
        create_project(tenant_id=organisation.id, slug="search", name="Again")


def test_an_operator_key_is_found_by_its_secret_and_replaced_by_name(db):
    first = issue_operator_key("ci")
    assert operator_key_by_secret(first) is not None
    second = issue_operator_key("ci")
    assert operator_key_by_secret(first) is None
    assert operator_key_by_secret(second) is not None
    assert operator_key_by_secret("mp_admin_" + "0" * 49) is None
