"""A key and its successor: both work for a while, the old one never longer than it would have."""

import threading
from datetime import timedelta

import msgspec
import pytest
from django.db import IntegrityError, connections

from meterplane.contracts import policy
from meterplane.contracts.api_key import digest, is_well_formed
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.kernel.ids import uuid7
from meterplane.policy.models import GatewayPolicy
from tenants import keys
from tenants.keys import issue_key, revoke_key
from tenants.limits import set_limit, set_restriction
from tenants.models import ApiKey, Project
from tenants.rotate import rotate_key
from tenants.scoping import tenant_scope

pytestmark = pytest.mark.django_db

DAY = timedelta(days=1)


def compiled(tenant_id, key_id) -> policy.KeyPolicy:
    with tenant_scope(tenant_id):
        row = GatewayPolicy.objects.get(key_id=key_id)
    return msgspec.convert(row.document, policy.KeyPolicy)


def key_of(tenant_id, key_id):
    with tenant_scope(tenant_id):
        return ApiKey.objects.get(id=key_id)


def test_a_successor_is_the_same_key_with_another_secret(organisation, settings):
    with clock.frozen(clock.now()):
        made = rotate_key(
            tenant_id=organisation.id, key_id=organisation.key_id, created_by=organisation.owner.pk
        )
        ends_at = clock.now() + DAY
    old, new = key_of(organisation.id, organisation.key_id), key_of(organisation.id, made.key.id)
    assert is_well_formed(made.secret)
    assert made.secret != organisation.secret
    assert bytes(new.digest) == digest(made.secret, settings.API_KEY_PEPPER)
    assert (new.name, new.project_id, new.expires_at) == (old.name, old.project_id, None)
    assert (new.replaces_id, new.created_by_id) == (old.id, organisation.owner.pk)
    assert (old.status, old.expires_at) == ("active", ends_at)


def test_both_are_compiled_and_the_old_one_knows_its_end(organisation):
    before = compiled(organisation.id, organisation.key_id)
    made = rotate_key(
        tenant_id=organisation.id, key_id=organisation.key_id, overlap=timedelta(hours=2)
    )
    old, new = (
        compiled(organisation.id, organisation.key_id),
        compiled(organisation.id, made.key.id),
    )
    assert old.version > before.version
    assert old.expires_at_ms == clock.to_ms(key_of(organisation.id, organisation.key_id).expires_at)
    assert (new.status, new.expires_at_ms, new.models) == ("active", None, before.models)


def test_the_old_one_never_lives_longer_than_it_would_have(organisation):
    with clock.frozen(clock.now()):
        soon = clock.now() + timedelta(hours=3)
        made = issue_key(
            tenant_id=organisation.id,
            project_id=organisation.project_id,
            name="short",
            expires_at=soon,
        )
        successor = rotate_key(tenant_id=organisation.id, key_id=made.key.id, overlap=7 * DAY)
    assert key_of(organisation.id, made.key.id).expires_at == soon
    assert successor.key.expires_at == soon  # nor does its successor


def test_a_successor_of_a_successor_has_the_first_ones_expiry(organisation):
    late = clock.now() + 90 * DAY
    first = issue_key(
        tenant_id=organisation.id, project_id=organisation.project_id, name="k", expires_at=late
    )
    second = rotate_key(tenant_id=organisation.id, key_id=first.key.id)
    third = rotate_key(tenant_id=organisation.id, key_id=second.key.id)
    assert third.key.expires_at == late


def test_both_draw_on_the_same_limits_and_are_restricted_alike(organisation):
    of_key = {"tenant_id": organisation.id, "level": "key"}
    set_limit(**of_key, scope_id=organisation.key_id, kind="requests", window="day", amount=1000)
    set_restriction(
        **of_key,
        scope_id=organisation.key_id,
        models=[],
        surfaces=["openai.chat"],
        ip_ranges=["192.0.2.0/24"],
        request_tokens_max=99,
    )
    second = rotate_key(tenant_id=organisation.id, key_id=organisation.key_id).key
    third = rotate_key(tenant_id=organisation.id, key_id=second.id).key
    policies = [
        compiled(organisation.id, each) for each in (organisation.key_id, second.id, third.id)
    ]
    names = {"limits", "models", "surfaces", "ip_ranges", "request_tokens_max"}
    for each in policies:
        assert {name: getattr(each, name) for name in names} == {
            name: getattr(policies[0], name) for name in names
        }
    (limit,) = [each for each in policies[2].limits if each.level == "key"]
    assert (limit.scope_id, limit.amount) == (organisation.key_id, 1000)
    assert (policies[2].surfaces, policies[2].request_tokens_max) == (["openai.chat"], 99)
    # What is set on one of them later holds for all.
    set_limit(**of_key, scope_id=third.id, kind="requests", window="day", amount=5)
    (limit,) = [
        each
        for each in compiled(organisation.id, organisation.key_id).limits
        if each.level == "key"
    ]
    assert limit.amount == 5


def test_without_overlap_the_old_one_is_revoked_at_once(organisation):
    rotate_key(tenant_id=organisation.id, key_id=organisation.key_id, overlap=timedelta(0))
    old = key_of(organisation.id, organisation.key_id)
    assert (old.status, old.revoked_at is not None) == ("revoked", True)
    assert compiled(organisation.id, organisation.key_id).status == "revoked"


def revoked(organisation):
    revoke_key(tenant_id=organisation.id, key_id=organisation.key_id)


def expired(organisation):
    with tenant_scope(organisation.id):
        ApiKey.objects.filter(id=organisation.key_id).update(expires_at=clock.now())


def rotated(organisation):
    rotate_key(tenant_id=organisation.id, key_id=organisation.key_id)


def no_room(organisation):
    keys.KEYS_PER_ORGANISATION_MAX = 1


@pytest.mark.parametrize(
    ("before", "code", "status"),
    [
        (revoked, "key_revoked", 409),
        (expired, "key_expired", 409),
        (rotated, "key_replaced", 409),
        (no_room, "too_many_keys", 409),
    ],
)
def test_what_cannot_be_rotated_is_refused_and_nothing_changes(
    organisation, monkeypatch, before, code, status
):
    monkeypatch.setattr(keys, "KEYS_PER_ORGANISATION_MAX", 1000)  # put back afterwards
    before(organisation)
    was = key_of(organisation.id, organisation.key_id)
    with tenant_scope(organisation.id):
        count = ApiKey.objects.count()
    with pytest.raises(CallerError) as refused:
        rotate_key(tenant_id=organisation.id, key_id=organisation.key_id)
    assert (refused.value.code, refused.value.status) == (code, status)
    now = key_of(organisation.id, organisation.key_id)
    assert (now.status, now.expires_at) == (was.status, was.expires_at)
    with tenant_scope(organisation.id):
        assert ApiKey.objects.count() == count


@pytest.mark.parametrize("overlap", [timedelta(seconds=-1), 30 * DAY + timedelta(seconds=1)])
def test_an_overlap_has_its_bounds(organisation, overlap):
    with pytest.raises(CallerError) as refused:
        rotate_key(tenant_id=organisation.id, key_id=organisation.key_id, overlap=overlap)
    assert (refused.value.code, refused.value.field) == ("overlap_out_of_range", "overlap")


def test_another_tenants_key_and_one_that_never_was_are_missing(onboard):
    acme, globex = onboard("acme"), onboard("globex")
    for key_id in (globex.key_id, uuid7()):
        with pytest.raises(CallerError) as refused:
            rotate_key(tenant_id=acme.id, key_id=key_id)
        assert (refused.value.code, refused.value.status) == ("key_not_found", 404)


def test_keys_that_have_ended_take_nobodys_place(organisation, monkeypatch):
    monkeypatch.setattr(keys, "KEYS_PER_ORGANISATION_MAX", 2)
    rotate_key(tenant_id=organisation.id, key_id=organisation.key_id)
    wanted = {"tenant_id": organisation.id, "project_id": organisation.project_id, "name": "k"}
    with pytest.raises(CallerError, match="at most 2"):
        issue_key(**wanted)
    with clock.frozen(clock.now() + 2 * DAY):
        issue_key(**wanted)


def replace(tenant_id, predecessor_id):
    """A key in the place of another, past the verb."""
    with tenant_scope(tenant_id):
        project_id = Project.objects.get().id
        ApiKey.objects.create(
            tenant_id=tenant_id,
            project_id=project_id,
            name="k",
            digest=uuid7().bytes,
            replaces_id=predecessor_id,
        )


def test_the_database_holds_one_successor_and_of_the_same_tenant(onboard):
    acme, globex = onboard("acme"), onboard("globex")
    with pytest.raises(IntegrityError, match="api_key_replaces_same_tenant"):
        replace(globex.id, acme.key_id)
    replace(acme.id, acme.key_id)
    with pytest.raises(IntegrityError, match="replaces_id"):
        replace(acme.id, acme.key_id)


@pytest.mark.django_db(transaction=True)
def test_of_many_who_rotate_at_once_one_does(organisation):
    codes = []

    def rotate():
        try:
            rotate_key(tenant_id=organisation.id, key_id=organisation.key_id)
            codes.append("ok")
        except CallerError as refused:
            codes.append(refused.code)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=rotate) for _ in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(codes) == ["key_replaced"] * 5 + ["ok"]
