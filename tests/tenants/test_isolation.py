"""Each layer of isolation refuses by itself: the door, the composite key, row-level security."""

import psycopg
import pytest
from django.db import IntegrityError, connection, transaction
from django.db.utils import DataError, ProgrammingError

from meterplane.kernel.ids import uuid7
from tenants.limits import set_limit
from tenants.models import ApiKey, Limit, Organisation, Project
from tenants.scoping import TenantScopeMissing, system_scope, tenant_scope
from tests import environment

pytestmark = pytest.mark.django_db


@pytest.fixture
def two(onboard):
    return onboard("acme"), onboard("globex")


def test_a_query_outside_every_door_raises(organisation):
    for model in (Organisation, Project, ApiKey):
        with pytest.raises(TenantScopeMissing):
            model.objects.count()


def test_a_door_shows_one_tenant_only(two):
    acme, globex = two
    with tenant_scope(acme.id):
        assert [key.id for key in ApiKey.objects.all()] == [acme.key_id]
        assert not ApiKey.objects.filter(id=globex.key_id).exists()
    with tenant_scope(globex.id):
        assert [key.id for key in ApiKey.objects.all()] == [globex.key_id]


def test_whether_there_is_any_row_is_asked_of_the_open_door(two):
    """Also where row-level security is out of the way: inside the system's door."""
    acme, globex = two
    with pytest.raises(TenantScopeMissing):
        Limit.objects.any_row()
    set_limit(
        tenant_id=acme.id, level="organisation", scope_id=acme.id, kind="spend", window="month",
        amount=1,
    )  # fmt: skip
    with system_scope("test"):
        assert Limit.objects.any_row()
        with tenant_scope(globex.id):
            assert not Limit.objects.any_row()
            assert Organisation.objects.any_row()
    with tenant_scope(acme.id):
        assert Limit.objects.any_row()


def test_row_security_hides_the_other_tenant_even_from_raw_sql(two):
    acme, globex = two
    with tenant_scope(acme.id), connection.cursor() as cursor:
        cursor.execute("SELECT tenant_id FROM api_key")
        assert cursor.fetchall() == [(acme.id,)]
        cursor.execute("UPDATE api_key SET name = 'taken' WHERE tenant_id = %s", [globex.id])
        assert cursor.rowcount == 0


def test_row_security_errors_when_no_tenant_is_set():
    """On a connection of its own: nothing was ever set there."""
    with (
        psycopg.connect(environment.database_url("meterplane_app")) as fresh,
        pytest.raises(psycopg.errors.UndefinedObject, match=r"app\.tenant_id"),
    ):
        fresh.execute("SELECT * FROM api_key")


def test_row_security_errors_after_a_door_was_closed(organisation):
    with tenant_scope(organisation.id):
        assert ApiKey.objects.count() == 1
    with pytest.raises(DataError, match="uuid"), transaction.atomic():
        connection.cursor().execute("SELECT * FROM api_key")


def test_a_row_for_another_tenant_cannot_be_written(two):
    acme, globex = two
    with (
        tenant_scope(acme.id),
        pytest.raises(ProgrammingError, match="row-level security"),
        transaction.atomic(),
    ):
        Project.objects.create(tenant_id=globex.id, slug="planted", name="Planted")


def test_a_reference_to_another_tenants_row_cannot_be_stored(two):
    """With row security out of the way, the composite foreign key still refuses."""
    acme, globex = two
    with (
        system_scope("test: no row security"),
        pytest.raises(IntegrityError, match="api_key_project_same_tenant"),
        transaction.atomic(),
    ):
        ApiKey.objects.filter(id=acme.key_id).update(project_id=globex.project_id)


def test_doors_of_two_tenants_do_not_nest(two):
    acme, globex = two
    with tenant_scope(acme.id):
        with pytest.raises(TenantScopeMissing, match="close it first"), tenant_scope(globex.id):
            pass
        with pytest.raises(TenantScopeMissing), system_scope("no"):
            pass


def test_a_tenants_door_inside_the_systems_narrows_and_widens_again(two):
    acme, _ = two
    with system_scope("test"):
        assert ApiKey.objects.count() == 2
        with tenant_scope(acme.id), connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM api_key")
            assert cursor.fetchone() == (1,)
        assert ApiKey.objects.count() == 2
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM api_key")
            assert cursor.fetchone() == (2,)


def test_an_exception_in_a_door_leaves_nothing_open(two):
    acme, _ = two
    with pytest.raises(RuntimeError, match="inside"), tenant_scope(acme.id):
        raise RuntimeError("inside")
    with pytest.raises(TenantScopeMissing):
        ApiKey.objects.count()
    with system_scope("test"):
        assert ApiKey.objects.count() == 2


def test_every_table_with_a_tenant_is_isolated():
    """A new table that forgets `meterplane_isolate` fails here."""
    with psycopg.connect(environment.database_url("postgres")) as admin:
        rows = admin.execute(
            """
            SELECT c.relname, c.relrowsecurity AND c.relforcerowsecurity
              FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
             WHERE a.attname = 'tenant_id' AND c.relkind IN ('r', 'p')
               AND c.relnamespace = 'public'::regnamespace AND NOT c.relispartition
            """
        ).fetchall()
    isolated = dict(rows)
    assert {"project", "member", "api_key", "gateway_policy", "budget_window"} <= isolated.keys()
    assert [name for name, forced in isolated.items() if not forced] == []


def test_the_app_may_not_switch_row_security_off():
    with psycopg.connect(environment.database_url("meterplane_app")) as app:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            app.execute("ALTER TABLE api_key DISABLE ROW LEVEL SECURITY")
        app.rollback()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            app.execute("SET ROLE meterplane_owner")


def test_the_gateway_reads_policies_and_nothing_else():
    with psycopg.connect(environment.database_url("meterplane_gateway")) as gateway:
        gateway.execute("SELECT document FROM gateway_policy").fetchall()
        for table in ("api_key", "organisation", "auth_user"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                gateway.execute(f"SELECT * FROM {table}".encode())
            gateway.rollback()


def test_a_missing_organisation_opens_an_empty_room():
    with tenant_scope(uuid7()):
        assert Organisation.objects.count() == 0
