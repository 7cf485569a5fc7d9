"""Limits as rows: the database refuses what the verbs do, and two changes at once take turns."""

import threading
from datetime import timedelta

import psycopg
import pytest
from django.db import IntegrityError, connection, connections, transaction
from django.db.utils import ProgrammingError

from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.kernel.ids import uuid7
from tenants.keys import issue_key
from tenants.limits import (
    add_balance,
    raise_temporarily,
    set_limit,
    set_plan,
    set_priority,
    set_restriction,
)
from tenants.models import BalanceTopUp, Limit, Organisation, Plan, Restriction
from tenants.onboard import create_organisation
from tenants.plans import set_plan_limits
from tenants.queries import monthly_budget_nano
from tenants.scoping import system_scope, tenant_scope
from tests import environment
from tests.conftest import wait_until
from tests.tenants.test_keys import compiled

pytestmark = pytest.mark.django_db
GOOD = {"level": "key", "kind": "requests", "window": "minute", "amount": 1}
RATE = {"level": "organisation", "kind": "requests", "window": "minute"}
TOLD = timedelta(hours=1)


def refused_by(constraint: str, tenant, model, values) -> None:
    with (
        tenant_scope(tenant.id),
        pytest.raises(IntegrityError, match=constraint),
        transaction.atomic(),
    ):
        model.objects.create(tenant_id=tenant.id, **values)


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ({"level": "team"}, "tenant_limit_level"),
        ({"kind": "spend"}, "tenant_limit_kind_window"),
        ({"kind": "euros"}, "tenant_limit_kind_window"),
        ({"mode": "shout"}, "tenant_limit_mode"),
        ({"amount": -1}, "tenant_limit_amount"),
        ({"burst": 0}, "tenant_limit_burst"),
        ({"burst": 1, "window": "day"}, "tenant_limit_burst_of_rates"),
        ({"burst": 1, "kind": "input_tokens"}, "tenant_limit_burst_of_rates"),
        ({"model": "m"}, "tenant_limit_level"),
        ({"level": "key_model"}, "tenant_limit_level"),
        ({"raised_to": 5}, "tenant_limit_raise_ends"),
        ({"raised_until": clock.now()}, "tenant_limit_raise_ends"),
        ({"level": "organisation"}, "tenant_limit_organisation_is_its_own"),
        ({"level": "project"}, "tenant_limit_project_same_tenant"),
        ({"kind": "spend", "window": "prepaid"}, "tenant_limit_prepaid_of_organisation"),
    ],
)
def test_the_database_refuses_limits_nobody_can_have(onboard, change, constraint):
    acme, globex = onboard("acme"), onboard("globex")
    refused_by(constraint, acme, Limit, GOOD | {"scope_id": globex.project_id} | change)


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ({"level": "key_model"}, "tenant_restriction_level"),
        ({"level": "organisation"}, "tenant_restriction_organisation_is_its_own"),
        ({"level": "project"}, "tenant_restriction_project_same_tenant"),
        ({}, "tenant_restriction_key_same_tenant"),
    ],
)
def test_the_database_refuses_restrictions_of_scopes_of_others(onboard, change, constraint):
    acme, globex = onboard("acme"), onboard("globex")
    scope_id = globex.key_id if not change else globex.project_id
    refused_by(constraint, acme, Restriction, {"level": "key", "scope_id": scope_id} | change)


def test_a_request_of_no_tokens_is_refused_by_the_database(organisation):
    values = {"level": "key", "scope_id": organisation.key_id, "request_tokens_max": 0}
    refused_by("tenant_restriction_tokens", organisation, Restriction, values)


def test_a_plan_that_is_no_list_is_refused_by_the_database(db):
    with pytest.raises(IntegrityError, match="plan_limits_is_a_list"), transaction.atomic():
        Plan.objects.create(slug="odd", name="Odd", limits={})


@pytest.mark.parametrize(
    "change",
    [
        lambda tenant_id: set_limit(tenant_id=tenant_id, scope_id=tenant_id, **RATE, amount=1),
        lambda tenant_id: raise_temporarily(
            tenant_id=tenant_id, limit_id=uuid7(), amount=1, until=clock.now() + TOLD
        ),
        lambda tenant_id: add_balance(tenant_id=tenant_id, nano=1, reference="p"),
        lambda tenant_id: set_restriction(
            tenant_id=tenant_id, level="organisation", scope_id=tenant_id, models=[]
        ),
        lambda tenant_id: set_plan(tenant_id=tenant_id, slug=None),
        lambda tenant_id: set_priority(tenant_id=tenant_id, priority="low", weight=1),
    ],
)
def test_an_organisation_that_is_not_there_is_not_found(db, change):
    with pytest.raises(CallerError) as refused:
        change(uuid7())
    assert (refused.value.code, refused.value.status) == ("organisation_not_found", 404)


@pytest.mark.parametrize("name", ["x" * 129, "two words"])
def test_a_model_that_no_catalog_could_hold_is_refused(organisation, name):
    with pytest.raises(CallerError) as refused:
        set_restriction(
            tenant_id=organisation.id, level="key", scope_id=organisation.key_id, models=[name]
        )
    assert refused.value.field == "models"


def test_the_months_budget_is_what_it_was_raised_to_until_that_ends(onboard):
    tenant = onboard("acme", monthly_budget_nano=5)
    with tenant_scope(tenant.id):
        limit, own = Limit.objects.get(), Organisation.objects.get()
    until = clock.now().replace(microsecond=0) + TOLD
    raise_temporarily(tenant_id=tenant.id, limit_id=limit.id, amount=9, until=until)
    for instant, amount in ((until - timedelta(seconds=1), 9), (until, 5)):
        with clock.frozen(instant), tenant_scope(tenant.id):
            assert monthly_budget_nano(own) == amount


def test_a_payment_is_paid_in_once(organisation):
    for reference, nano, balance in (("p1", 5, 5), (" p1 ", 5, 5), ("p2", 7, 12), ("p1", 5, 12)):
        row = add_balance(tenant_id=organisation.id, nano=nano, reference=reference)
        assert row.amount == balance
    for reference, nano, code, field in (
        ("p1", 6, "reference_taken", "reference"),
        ("", 1, "limit_invalid", "reference"),
        ("x" * 121, 1, "limit_invalid", "reference"),
        ("p3", 10**18, "limit_invalid", "amount"),
    ):
        with pytest.raises(CallerError) as refused:
            add_balance(tenant_id=organisation.id, nano=nano, reference=reference)
        assert (refused.value.code, refused.value.field) == (code, field)
    with tenant_scope(organisation.id):
        paid_in = dict(BalanceTopUp.objects.values_list("reference", "amount_nano"))
    assert paid_in == {"p1": 5, "p2": 7}


def test_what_was_paid_in_stays_written(organisation):
    for statement in ("UPDATE balance_top_up SET amount_nano = 1", "DELETE FROM balance_top_up"):
        for door in (tenant_scope(organisation.id), system_scope("test")):
            with (
                pytest.raises(ProgrammingError, match="permission denied"),
                transaction.atomic(),
                door,
            ):
                connection.cursor().execute(statement)


def in_a_thread(act) -> threading.Thread:
    def run():
        try:
            act()
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def is_waited_for() -> bool:
    """Somebody waits for a lock. Asked outside: inside a transaction the answer never changes."""
    with psycopg.connect(environment.database_url("postgres")) as admin:
        return admin.execute("SELECT FROM pg_locks WHERE NOT granted").fetchone() is not None


def limits_of(tenant) -> list[int]:
    return [each.amount for each in compiled(tenant.id, tenant.key_id).limits]


@pytest.mark.django_db(transaction=True)
def test_who_joins_a_plan_while_it_changes_is_bound_by_the_change(onboard):
    """Neither the change sees the newcomer, nor the newcomer the change, unless one waits."""
    tenant = onboard("acme")
    set_plan_limits(slug="gold", name="Gold", limits=[RATE | {"amount": 5}])
    with transaction.atomic():
        set_plan_limits(slug="gold", name="Gold", limits=[RATE | {"amount": 7}])
        joining = in_a_thread(lambda: set_plan(tenant_id=tenant.id, slug="gold"))
        wait_until(is_waited_for, "the newcomer waiting for the plan")
    joining.join(30)
    assert limits_of(tenant) == [7]


@pytest.mark.django_db(transaction=True)
def test_who_signs_up_while_the_standard_plan_changes_is_bound_by_the_change(onboard):
    onboard("first")  # there is a standard plan
    made = {}

    def sign_up():
        made["it"] = onboard("acme")

    with transaction.atomic():
        set_plan_limits(slug="standard", name="Standard", limits=[RATE | {"amount": 7}])
        joining = in_a_thread(sign_up)
        wait_until(is_waited_for, "the newcomer waiting for the plan")
    joining.join(30)
    assert limits_of(made["it"]) == [7]


@pytest.mark.django_db(transaction=True)
def test_two_who_change_one_balance_never_wait_for_each_other(organisation):
    """A raise of the balance and a payment into it lock in one order: the organisation first."""
    add_balance(tenant_id=organisation.id, nano=5, reference="p1")
    with tenant_scope(organisation.id):
        balance = Limit.objects.get()
        Organisation.objects.select_for_update().get()
        raising = in_a_thread(
            lambda: raise_temporarily(
                tenant_id=organisation.id,
                limit_id=balance.id,
                amount=100,
                until=clock.now() + TOLD,
            )
        )
        wait_until(is_waited_for, "the raise waiting for the organisation")
        add_balance(tenant_id=organisation.id, nano=7, reference="p2")
    raising.join(30)
    with tenant_scope(organisation.id):
        balance = Limit.objects.get()
    assert (balance.amount, balance.raised_to) == (12, 100)


def test_restrictions_of_a_plan_that_are_no_object_are_refused_by_the_database(db):
    with (
        pytest.raises(IntegrityError, match="plan_restrictions_is_an_object"),
        transaction.atomic(),
    ):
        Plan.objects.create(slug="odd", name="Odd", restrictions=[])


@pytest.mark.django_db(transaction=True)
def test_a_limit_that_is_set_while_the_first_key_is_made_holds_for_it(redis_url):
    """The setting of it compiles nothing, for there is no key yet that anybody else sees."""
    ours = create_organisation(
        slug="first", name="First", owner_email="o@first.example", owner_password="correct horse"
    )
    tenant_id, keys = ours.organisation.id, []
    with tenant_scope(tenant_id):
        set_limit(tenant_id=tenant_id, scope_id=tenant_id, amount=7, **RATE)
        issuing = in_a_thread(
            lambda: keys.append(
                issue_key(tenant_id=tenant_id, project_id=ours.project.id, name="first")
            )
        )
        wait_until(is_waited_for, "the key waiting for the limit")
    issuing.join(30)
    assert 7 in [each.amount for each in compiled(tenant_id, keys[0].key.id).limits]
