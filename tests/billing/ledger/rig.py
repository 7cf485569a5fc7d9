"""Ledgers as text, and PostgreSQL asked directly, by each of its roles."""

from collections.abc import Iterable
from contextlib import contextmanager
from uuid import UUID

import psycopg

from billing.ledger.entry import Leg
from billing.ledger.queries import balances
from tenants.scoping import tenant_scope
from tests import environment


def legs(text: str) -> tuple[Leg, ...]:
    """`account amount`, a leg a line (or after a comma)."""
    lines = [line.split() for line in text.replace(",", "\n").splitlines() if line.strip()]
    return tuple(Leg(account, int(amount)) for account, amount in lines)


def as_text(moved: Iterable[Leg]) -> str:
    """As `legs` reads them."""
    return ", ".join(f"{leg.account} {leg.amount_minor}" for leg in moved)


def held(tenant_id: UUID, currency: str = "USD") -> dict[str, int]:
    """What each account of a tenant holds, where it is not zero."""
    with tenant_scope(tenant_id):
        return {
            row.account: row.balance_minor
            for row in balances()
            if row.currency == currency and row.balance_minor
        }


@contextmanager
def role(name: str, tenant_id: UUID | None = None):
    """A connection of its own; with `tenant_id`, through that tenant's door. Commits at the end."""
    with psycopg.connect(environment.database_url(name)) as connection:
        if tenant_id is not None:
            connection.execute("SELECT set_config('app.tenant_id', %s, true)", [str(tenant_id)])
        yield connection
        connection.commit()  # in here: a commit that fails must close, too


def tamper(*statements: str) -> None:
    """What only a superuser who switches triggers off can do."""
    with role("postgres") as admin:
        admin.execute("SET session_replication_role = replica")
        for statement in statements:
            admin.execute(statement.encode())
