"""A worker's pool against a real PostgreSQL that closes connections, or is not there."""

import psycopg
import pytest

from meterplane.gateway.postgres_pool import CONNECTIONS_MAX, PostgresPool
from tests import environment
from tests.conftest import free_port

pytestmark = pytest.mark.django_db(transaction=True)
ROLE = "meterplane_gateway"


@pytest.fixture
async def pool(transactional_db):
    made = PostgresPool(environment.database_url(ROLE))
    await made.open()
    yield made
    await made.close()


async def cut_off(pool):
    """All connections that there can be are made, and then closed by PostgreSQL."""
    taken = [await pool.getconn() for _ in range(CONNECTIONS_MAX)]
    pids = [connection.info.backend_pid for connection in taken]
    for connection in taken:
        await pool.putconn(connection)
    admin = await psycopg.AsyncConnection.connect(
        environment.database_url("postgres"), autocommit=True
    )
    async with admin:
        await admin.execute("SELECT pg_terminate_backend(pid, 5000) FROM unnest(%s) pid", (pids,))


async def test_however_many_connections_postgresql_closed_the_next_caller_gets_one(pool):
    for _ in range(3):
        await cut_off(pool)
        for _ in range(2 * CONNECTIONS_MAX):
            async with pool.connection() as connection:
                cursor = await connection.execute("SELECT 1")
                assert await cursor.fetchone() == (1,)
    taken = [await pool.getconn() for _ in range(CONNECTIONS_MAX)]
    for connection in taken:
        await pool.putconn(connection)


async def test_a_query_that_fails_leaves_its_connection_to_the_next(pool):
    for _ in range(2 * CONNECTIONS_MAX):
        with pytest.raises(psycopg.errors.UndefinedTable):
            async with pool.connection() as connection:
                await connection.execute("SELECT 1 FROM nothing_of_that_name")
    assert pool.get_stats().get("returns_bad", 0) == 0


async def test_without_a_postgresql_it_says_so_in_time():
    pool = PostgresPool(f"postgresql://nobody:none@127.0.0.1:{free_port()}/none")
    await pool.open()
    try:
        with pytest.raises(psycopg.Error):
            async with pool.connection(timeout=0.2):
                pass
    finally:
        await pool.close()
