"""A worker's connections to PostgreSQL: few, asked before they are used.

Guarantees: a caller is handed a connection that answered just now. Those that PostgreSQL closed (it
was restarted, or failed over) are dropped one after the other without a pause, and replaced.
"""

import psycopg
from psycopg_pool import AsyncConnectionPool

CONNECTIONS_MAX = 4  # policy reads on a miss and budget blocks, nothing per request
CONNECT_TIMEOUT_S = 2.0


class PostgresPool(AsyncConnectionPool):
    """Like the pool it is, but for its `check`: that pauses a second after the first dead one, and
    two after the next, while the callers wait.
    """

    def __init__(self, url: str) -> None:
        super().__init__(
            url,
            min_size=1,
            max_size=CONNECTIONS_MAX,
            timeout=CONNECT_TIMEOUT_S,
            kwargs={"autocommit": True},
            open=False,
        )

    async def getconn(self, timeout: float | None = None) -> psycopg.AsyncConnection:
        """A connection that answers. Raises `PoolTimeout`; `psycopg.OperationalError` when as many
        as there can be do not answer.
        """
        for dead in range(CONNECTIONS_MAX + 1):
            connection = await super().getconn(timeout)
            try:
                await self.check_connection(connection)  # so seldom that it does not count
            except BaseException as problem:
                await self.putconn(connection)  # a dead one is replaced
                if not isinstance(problem, psycopg.OperationalError) or dead == CONNECTIONS_MAX:
                    raise
            else:
                return connection
        raise AssertionError("the last one was raised")
