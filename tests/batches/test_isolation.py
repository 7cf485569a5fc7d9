"""Rows of files, batches and lines: each layer refuses by itself, and what has ended stays so."""

import psycopg
import pytest
from django.db import DatabaseError, connection, transaction

from meterplane.batches.models import Batch, BatchLine, StoredFile
from meterplane.batches.validate import validate
from tenants.scoping import TenantScopeMissing, tenant_scope
from tests import environment
from tests.batches.conftest import drive, request_line, row

pytestmark = pytest.mark.django_db(transaction=True)

TABLES = ("batch_file", "batch", "batch_line")


def test_no_row_is_reached_outside_a_door(start, organisation):
    start(request_line("a"))
    for model in (StoredFile, Batch, BatchLine):
        with pytest.raises(TenantScopeMissing):
            model.objects.count()
    with psycopg.connect(environment.database_url("meterplane_app"), autocommit=True) as app:
        for table in TABLES:
            with pytest.raises(psycopg.errors.UndefinedObject, match=r"app\.tenant_id"):
                app.execute(f"SELECT * FROM {table}".encode())


def test_row_security_hides_the_other_tenants_rows_from_raw_sql(start, organisation, onboard):
    batch = start(request_line("a"))
    validate(organisation.id, row(organisation, batch.id).id)
    globex = onboard("globex")
    for tenant_id, count in ((organisation.id, 1), (globex.id, 0)):
        with tenant_scope(tenant_id), connection.cursor() as cursor:
            for table in TABLES:
                cursor.execute(f"SELECT count(*) FROM {table}")
                assert cursor.fetchone() == (count,), table


def test_a_batch_cannot_name_another_tenants_project_or_key(start, organisation, onboard):
    globex = onboard("globex")
    batch = row(organisation, start(request_line("a")).id)
    for stolen in ({"project_id": globex.project_id}, {"key_id": globex.key_id}):
        with pytest.raises(DatabaseError, match="same_tenant"), tenant_scope(organisation.id):
            Batch.objects.filter(id=batch.id).update(**stolen)


def test_a_line_that_has_its_answer_and_a_batch_that_has_ended_stay_as_they_are(
    start, organisation, gateway
):
    batch = row(organisation, start(request_line("a"), request_line("b")).id)
    validate(organisation.id, batch.id)
    with tenant_scope(organisation.id):
        first = BatchLine.objects.filter(custom_id="a")
        first.update(status="completed", body=b"{}", http_status=200)
        with pytest.raises(DatabaseError, match="has its answer"), transaction.atomic():
            first.update(body=b'{"another": 1}')
        with pytest.raises(DatabaseError, match="result_iff_ended"), transaction.atomic():
            BatchLine.objects.filter(custom_id="b").update(status="completed")
        with pytest.raises(DatabaseError, match="counts_add_up"), transaction.atomic():
            Batch.objects.filter(id=batch.id).update(completed=3)
        Batch.objects.filter(id=batch.id).update(completed=1)
    drive(organisation, f"batch_{batch.id.hex}")
    with pytest.raises(DatabaseError, match="has ended"), tenant_scope(organisation.id):
        Batch.objects.filter(id=batch.id).update(failed=1)


def test_the_gateways_role_sees_none_of_it(start, organisation):
    start(request_line("a"))
    with psycopg.connect(
        environment.database_url("meterplane_gateway"), autocommit=True
    ) as gateway:
        for table in TABLES:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                gateway.execute(f"SELECT * FROM {table}".encode())
