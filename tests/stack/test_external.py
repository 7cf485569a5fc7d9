"""A PostgreSQL that is the user's: made ready when we may, or a sentence for who may."""

from pathlib import Path

import msgspec
import psycopg
import pytest

from meterplane.stack.component import NotStarted
from meterplane.stack.external import provide_roles
from meterplane.stack.installation import Secrets
from meterplane.stack.layout import Layout
from meterplane.stack.ports import OFFSETS, Ports
from meterplane.stack.servers import Servers, locate
from tests import environment

SQL = Path(__file__).resolve().parents[2] / "infra" / "postgres"
PORTS = Ports({name: 8700 + offset for name, offset in OFFSETS.items()}, {})
# The passwords this test process's cluster already has: other tests go on using them.
SECRETS = msgspec.structs.replace(
    Secrets.generate(),
    database_passwords={role: environment.PASSWORDS[role] for role in environment.PASSWORDS},
)


def given(database_url: str, tmp_path: Path) -> Servers:
    return locate(Layout(tmp_path), PORTS, SECRETS, {"DATABASE_URL": database_url})


def test_roles_and_database_are_made_with_an_administrators_url(servers: None, tmp_path: Path):
    located = given(environment.database_url("postgres", "brought_along"), tmp_path)
    provide_roles(located, SECRETS, SQL)
    provide_roles(located, SECRETS, SQL)
    with psycopg.connect(located.owner_database_url) as connection:
        connection.execute("CREATE TABLE made_by_the_owner (id int)")
    with psycopg.connect(located.app_database_url) as connection:
        assert connection.execute("SELECT current_user, current_database()").fetchone() == (
            "meterplane_app",
            "brought_along",
        )
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("CREATE TABLE made_by_the_application (id int)")


def test_a_role_that_may_not_make_roles_is_told_what_an_administrator_has_to_run(
    servers: None, tmp_path: Path
):
    located = given(environment.database_url("meterplane_gateway", "postgres"), tmp_path)
    with pytest.raises(NotStarted, match=r"roles\.sql and database\.sql"):
        provide_roles(located, SECRETS, SQL)


def test_a_server_that_is_not_there_is_named_by_its_variable(tmp_path: Path):
    located = given("postgresql://postgres@127.0.0.1:9/meterplane", tmp_path)
    with pytest.raises(NotStarted, match="DATABASE_URL"):
        provide_roles(located, SECRETS, SQL)
