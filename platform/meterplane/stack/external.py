"""Make a PostgreSQL, ours or the user's, ready for the first migration: roles and a database."""

from pathlib import Path

import psycopg

from meterplane.stack.component import NotStarted
from meterplane.stack.embedded import postgres
from meterplane.stack.installation import Secrets
from meterplane.stack.servers import Servers, database_name, maintenance_url

POSTGRES_MAJOR_MIN = 15


def provide_roles(servers: Servers, secrets: Secrets, sql_folder: Path) -> None:
    """Create the roles with this installation's passwords, and the database if it is missing.

    Raises `NotStarted` saying what an administrator has to do, when the given URL may not do it.
    """
    database = database_name(servers.admin_database_url)
    maintenance = maintenance_url(servers.admin_database_url)
    try:
        with psycopg.connect(maintenance, connect_timeout=5) as connection:
            major = connection.info.server_version // 10_000
        if major < POSTGRES_MAJOR_MIN:
            raise NotStarted(
                f"PostgreSQL {major} is too old; {POSTGRES_MAJOR_MIN} or newer is needed."
            )
        postgres.create_roles(maintenance, secrets.database_passwords, sql_folder / "roles.sql")
        postgres.create_database(maintenance, database, sql_folder / "database.sql")
    except psycopg.errors.InsufficientPrivilege as refusal:
        raise NotStarted(
            f"The role of DATABASE_URL may not create roles ({refusal}). Have a database "
            f"administrator run {sql_folder}/roles.sql and database.sql, or set DATABASE_URL to a "
            "superuser's URL; it is used for this step only."
        ) from None
    except psycopg.OperationalError as failure:
        raise NotStarted(f"PostgreSQL cannot be reached with DATABASE_URL: {failure}") from None
