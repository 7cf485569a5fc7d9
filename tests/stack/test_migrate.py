"""`manage.py migrate` makes what Django's own makes."""

import subprocess
from collections.abc import Callable

import pytest
from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.core.management.commands import migrate as djangos
from django.db import connection

from meterplane.stack.embedded import postgres
from meterplane.stack.management.commands import migrate as ours
from tests import cluster, environment


@pytest.fixture
def migrated_by(servers: None, django_db_blocker) -> Callable[[str, BaseCommand], list[str]]:
    """What is in a new database that a command has migrated, as `pg_dump` tells it."""

    def told(database: str, command: BaseCommand) -> list[str]:
        admin = environment.database_url(postgres.SUPERUSER, "postgres")
        postgres.create_database(admin, database, cluster.INFRASTRUCTURE / "database.sql")
        before = dict(connection.settings_dict)
        password = environment.PASSWORDS["meterplane_owner"]
        owner = {"USER": "meterplane_owner", "PASSWORD": password}
        connection.close()
        connection.settings_dict |= {"NAME": database, **owner}
        try:
            with django_db_blocker.unblock():
                call_command(command, verbosity=0, interactive=False)
        finally:
            connection.close()
            connection.settings_dict |= before
        dump = subprocess.run(
            [
                str(postgres.binaries() / "pg_dump"),
                *("--schema-only", "--restrict-key=same"),
                environment.database_url(postgres.SUPERUSER, database),
            ],
            check=True,
            capture_output=True,
            text=True,
        )
        return dump.stdout.splitlines()

    return told


@pytest.mark.long
def test_tables_are_what_djangos_own_command_makes(migrated_by):
    made = migrated_by("ours", ours.Command())
    assert sum(line.startswith("CREATE TABLE") for line in made) > 100
    assert sum("ADD CONSTRAINT" in line for line in made) > 300
    assert made == migrated_by("djangos", djangos.Command())


def test_it_is_the_one_that_is_run():
    from django.core.management import get_commands

    assert get_commands()["migrate"] == "meterplane.stack"
