"""What PostgreSQL refuses by itself, whoever asks: with SQL, past every line of ours."""

from itertools import product
from uuid import UUID

import psycopg
import pytest
from psycopg.errors import (
    CheckViolation,
    ForeignKeyViolation,
    InsufficientPrivilege,
    RestrictViolation,
    UniqueViolation,
)

from billing.ledger.post import post
from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from tenants.scoping import tenant_scope
from tests.billing.ledger.rig import held, legs, role

pytestmark = pytest.mark.django_db(transaction=True)

ENTRY = """
    INSERT INTO ledger_entry (id, tenant_id, kind, source_id, currency, leg_count, content_hash,
                              memo, effective_at, created_at)
    VALUES (%(id)s, %(tenant)s, 'raw.test', %(source)s, %(currency)s, %(leg_count)s, '', '',
            now(), now())
"""
LEG = """
    INSERT INTO ledger_leg (id, tenant_id, entry_id, position, account, currency, amount_minor)
    VALUES (%s, %s, %s, %s, %s, %s, %s)
"""
TABLES = ["ledger_entry", "ledger_leg", "ledger_balance"]
CHANGES = ["UPDATE {} SET tenant_id = tenant_id", "DELETE FROM {}", "TRUNCATE {} CASCADE"]
BALANCE = "INSERT INTO ledger_balance VALUES (gen_random_uuid(), 'USD', 'receivable', 1, 1, %s)"


@pytest.fixture
def sale(acme):
    """An entry of two legs, committed."""
    with tenant_scope(acme.id):
        moved = legs("receivable 5, revenue:requests -5")
        return post(kind="test.sale", source_id="1", currency="USD", legs=moved, at=clock.now())


def enter(connection, tenant, entry=None, leg_count=2, currency="USD", moved=()) -> UUID:
    """An entry by SQL, with legs of (position, account, amount) or (..., currency)."""
    entry_id = entry or uuid7()
    if entry is None:
        values = {"id": entry_id, "tenant": tenant.id, "source": str(entry_id),
                  "currency": currency, "leg_count": leg_count}  # fmt: skip
        connection.execute(ENTRY.encode(), values)
    for position, account, amount, *other in moved:
        row = [uuid7(), tenant.id, entry_id, position, account, *(other or [currency]), amount]
        connection.execute(LEG.encode(), row)
    return entry_id


def refused(refusal, name, tenant, act, told=None) -> None:
    """The act, on a connection of its own as this role and through the tenant's door, raises."""
    with pytest.raises(refusal, match=told), role(name, tenant.id) as connection:
        act(connection)


def test_a_temporary_table_of_the_same_name_does_not_stand_in_for_the_ledger(acme):
    def act(connection):
        entry = enter(connection, acme)
        connection.execute(
            "CREATE TEMP TABLE ledger_leg (entry_id uuid, currency text, amount_minor bigint)"
        )
        connection.execute("GRANT SELECT ON pg_temp.ledger_leg TO PUBLIC")
        for amount in (5, -5):
            connection.execute(
                "INSERT INTO pg_temp.ledger_leg VALUES (%s, 'USD', %s)", [entry, amount]
            )
        for position, amount in ((1, 5), (2, 7)):
            row = [uuid7(), acme.id, entry, position, "receivable", "USD", amount]
            connection.execute(LEG.replace("ledger_leg", "public.ledger_leg").encode(), row)

    refused(RestrictViolation, "meterplane_app", acme, act, "12 USD apart")
    assert held(acme.id) == {}


@pytest.mark.parametrize(
    ("name", "refusal"),
    [
        ("meterplane_app", InsufficientPrivilege),
        ("meterplane_system", InsufficientPrivilege),
        ("meterplane_owner", RestrictViolation),
        ("postgres", RestrictViolation),  # unless it switches triggers off
    ],
)
def test_nobody_changes_what_was_posted_or_writes_a_balance(acme, sale, name, refusal):
    for table, change in product(TABLES, CHANGES):
        statement = change.format(table).encode()
        refused(refusal, name, acme, lambda it, statement=statement: it.execute(statement))
    refused(refusal, name, acme, lambda it: it.execute(BALANCE, [acme.id]))
    assert held(acme.id) == {"receivable": 5, "revenue:requests": -5}


def test_the_systems_role_reads_and_does_not_post(acme, sale):
    with role("meterplane_system") as system:
        assert system.execute("SELECT count(*) FROM ledger_leg").fetchone() == (2,)
        with pytest.raises(InsufficientPrivilege):
            enter(system, acme)


def test_a_whole_entry_by_sql_is_taken_and_moves_the_balances(acme):
    with role("meterplane_app", acme.id) as app:
        enter(app, acme, moved=[(1, "payments", 7), (2, "receivable", -7)])
    assert held(acme.id) == {"payments": 7, "receivable": -7}


def test_an_entry_that_is_not_balanced_is_not_committed(acme):
    for moved, told in [
        ([(1, "receivable", 5), (2, "payments", -4)], "1 USD apart"),
        ([(1, "receivable", 5)], "has 1 legs, it says 2"),
        ([], "has 0 legs, it says 2"),
        ([(1, "receivable", 5), (3, "payments", -5)], "has no leg 3"),
        ([(0, "receivable", 5), (1, "payments", -5)], "has no leg 0"),
        ([(1, "receivable", 5, "EUR"), (2, "payments", -5, "EUR")], "in EUR"),
    ]:
        refused(
            RestrictViolation, "meterplane_app", acme,
            lambda app, moved=moved: enter(app, acme, moved=moved), told,
        )  # fmt: skip
    assert held(acme.id) == {}


def test_a_leg_that_is_none_and_an_entry_without_two_are_refused(acme):
    for refusal, told, values in [
        (CheckViolation, "amount_bounded", {"moved": [(1, "receivable", 0)]}),
        (CheckViolation, "amount_bounded", {"moved": [(1, "receivable", 10**15 + 1)]}),
        (CheckViolation, "amount_bounded", {"moved": [(1, "receivable", -(10**15) - 1)]}),
        (CheckViolation, "account_known", {"moved": [(1, "cash", 1)]}),
        (CheckViolation, "account_known", {"moved": [(1, "revenue:", 1)]}),
        (UniqueViolation, "position_once",
         {"moved": [(1, "receivable", 1), (1, "payments", -1)]}),
        (CheckViolation, "legs_bounded", {"leg_count": 1}),
        (CheckViolation, "legs_bounded", {"leg_count": 501}),
        (CheckViolation, "currency_iso", {"currency": "usd"}),
    ]:  # fmt: skip
        refused(
            refusal, "meterplane_app", acme,
            lambda app, values=values: enter(app, acme, **values), told,
        )  # fmt: skip


def test_no_leg_is_added_to_an_earlier_entry(acme, sale):
    for refusal, told, moved in [
        (UniqueViolation, "position_once", [(1, "receivable", 1)]),
        (UniqueViolation, "position_once", [(2, "receivable", 1)]),
        # Nor two that add up to zero, beyond its last.
        (RestrictViolation, "has no leg 3", [(3, "receivable", 1), (4, "payments", -1)]),
    ]:
        refused(
            refusal, "meterplane_app", acme,
            lambda app, moved=moved: enter(app, acme, entry=sale, moved=moved), told,
        )  # fmt: skip
    assert held(acme.id) == {"receivable": 5, "revenue:requests": -5}


def test_a_source_is_posted_once(acme):
    values = {
        "id": uuid7(), "tenant": acme.id, "source": "1", "currency": "USD", "leg_count": 2,
    }  # fmt: skip
    with role("meterplane_app", acme.id) as app:
        app.execute(ENTRY.encode(), values)
        with pytest.raises(UniqueViolation, match="ledger_entry_source_once"):
            app.execute(ENTRY.encode(), values | {"id": uuid7()})
        app.rollback()


def test_no_more_credit_is_drawn_than_there_is(acme):
    bought = [(1, "payments", 50), (2, "credits:purchased", -50)]
    with role("meterplane_app", acme.id) as app:
        enter(app, acme, moved=bought)
    with role("meterplane_app", acme.id) as app:
        enter(app, acme, moved=[(1, "credits:purchased", 50), (2, "receivable", -50)])
    with (
        pytest.raises(CheckViolation, match="credit_not_overdrawn"),
        role("meterplane_app", acme.id) as app,
    ):
        enter(app, acme, moved=[(1, "credits:purchased", 1), (2, "receivable", -1)])


def test_another_tenants_ledger_is_neither_seen_nor_posted_to(acme, sale, onboard):
    other = onboard("other")
    with role("meterplane_app", other.id) as app:
        for table in (b"ledger_entry", b"ledger_leg", b"ledger_balance"):
            assert app.execute(b"SELECT count(*) FROM " + table).fetchone() == (0,)
    with (
        pytest.raises(InsufficientPrivilege, match="row-level security"),
        role("meterplane_app", other.id) as app,
    ):
        enter(app, acme, moved=[(1, "receivable", 1), (2, "payments", -1)])
    # Nor does a leg of one hang on the other's entry, where nothing hides it.
    with (
        pytest.raises(ForeignKeyViolation, match="ledger_leg_entry_same_tenant"),
        role("postgres") as admin,
    ):
        enter(admin, other, entry=enter(admin, acme), moved=[(1, "receivable", 1)])


def test_the_ledger_is_not_reached_without_a_door(acme, sale):
    with pytest.raises(psycopg.errors.UndefinedObject), role("meterplane_app") as app:
        app.execute("SELECT * FROM ledger_entry")
