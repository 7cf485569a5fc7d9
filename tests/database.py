"""The tests' database as its superuser sees it: emptied after each test, and what was kept back in.

As a replica would: without foreign keys, and without the triggers that keep rows immutable.
"""

import psycopg
from psycopg import sql

from tests import environment

# What migrations put there and no test changes.
KEPT_TABLES = {"django_migrations", "django_content_type", "auth_permission"}
TABLES = """
SELECT relname FROM pg_class
 WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
"""


class Database:
    """One connection of the superuser, held while the tests of a process last.

    Deleting the few rows of a test is ten times faster than truncating fifty tables, and deleting
    in a function, which is planned once, three times faster still.
    """

    def __init__(self) -> None:
        self._connection = psycopg.connect(environment.database_url("postgres"), autocommit=True)
        found = [name for (name,) in self._connection.execute(TABLES)]
        self._tables = [name for name in found if name not in KEPT_TABLES]
        self._kept: set[str] = set()
        self._connection.execute("SET session_replication_role = replica")
        self._define(
            "empty", [sql.SQL("DELETE FROM {};").format(sql.Identifier(t)) for t in self._tables]
        )

    def empty(self) -> None:
        """Delete every row of every table."""
        self._connection.execute("SELECT pg_temp.empty()")

    def keep(self, name: str) -> None:
        """Keep all rows there are, to be put back by `restore(name)`."""
        insert = []
        for table in self._tables:
            copy = sql.Identifier(f"{name}_{table}")
            source = sql.Identifier("public", table)
            self._connection.execute(
                sql.SQL("CREATE TEMP TABLE {} AS SELECT * FROM {}").format(copy, source)
            )
            if self._connection.execute(sql.SQL("SELECT FROM {}").format(copy)).rowcount:
                insert.append(sql.SQL("INSERT INTO {} SELECT * FROM {};").format(source, copy))
        self._define(name, insert)
        self._kept.add(name)

    def restore(self, name: str) -> bool:
        """Put back what was kept, into empty tables. False when nothing was."""
        if name in self._kept:
            self._connection.execute(sql.SQL("SELECT pg_temp.{}()").format(sql.Identifier(name)))
        return name in self._kept

    def close(self) -> None:
        """PostgreSQL ends when its last client has gone."""
        self._connection.close()

    def _define(self, name: str, statements: list[sql.Composed]) -> None:
        self._connection.execute(
            sql.SQL(
                "CREATE FUNCTION pg_temp.{}() RETURNS void LANGUAGE plpgsql AS $$ BEGIN {} END $$"
            ).format(sql.Identifier(name), sql.SQL(" ").join(statements))
        )
