"""What one gateway worker holds open, in the order it is opened; closed in reverse."""

import contextlib

from meterplane.contracts.reservations import mark_of
from meterplane.gateway import worker_state
from meterplane.gateway.access_log import AccessLog
from meterplane.gateway.admission_commands import Tokens
from meterplane.gateway.admit import SCRIPTS, Admitter
from meterplane.gateway.budgets import Budgets
from meterplane.gateway.config import Config
from meterplane.gateway.day_counts import DayCounts
from meterplane.gateway.insist import Insist
from meterplane.gateway.lua_calls import LuaCalls
from meterplane.gateway.metrics import Metrics
from meterplane.gateway.pipeline import Parts
from meterplane.gateway.policies import Policies
from meterplane.gateway.postgres_pool import PostgresPool
from meterplane.gateway.prompts import Prompts
from meterplane.gateway.readiness import Readiness
from meterplane.gateway.revocation import OpenRuns
from meterplane.gateway.servings import Servings
from meterplane.gateway.spans import Spans
from meterplane.gateway.turns import Turns
from meterplane.journal.disk import Disk
from meterplane.journal.room import RoomWatch
from meterplane.journal.succession import Journal
from meterplane.triton.fleet import Fleet


class Worker:
    """Opens and closes the parts of one worker."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._stack = contextlib.AsyncExitStack()

    async def open(self) -> Parts:
        """Everything a request needs. Raises `JournalUnavailable` when usage cannot be kept.

        PostgreSQL and Redis may be away at start: requests that need them are refused until they
        come, and the pool keeps trying.
        """
        config = self._config
        journal = Journal(config.journal_dir, config.worker, Disk(), config.journal_mode)
        self._stack.push_async_callback(journal.close)
        watch = RoomWatch(
            config.journal_dir,
            journal,
            config.journal_free_bytes_min,
            config.journal_backlog_bytes_max,
        )
        watch.start()
        self._stack.push_async_callback(watch.close)
        pool = PostgresPool(config.database_url)
        await pool.open(wait=False)
        self._stack.push_async_callback(pool.close)
        calls = LuaCalls(config.admission_redis_url, SCRIPTS, config.admission_timeout_s)
        calls.start()
        self._stack.push_async_callback(calls.close)
        insist = Insist(calls)
        insist.start()
        self._stack.push_async_callback(insist.close)
        fleet = Fleet(config.triton_urls)
        fleet.start()
        self._stack.push_async_callback(fleet.close)
        spans = Spans() if config.spans else None
        if spans is not None:
            self._stack.push_async_callback(spans.close)
        policies = Policies(pool)
        day_counts = DayCounts(pool, calls)
        tokens = Tokens(mark_of(journal.directory))
        journal.on_new_directory = lambda directory: tokens.renew(mark_of(directory))
        open_runs = OpenRuns(calls, policies)
        open_runs.start()
        self._stack.push_async_callback(open_runs.close)
        parts = Parts(
            pepper=config.pepper,
            policies=policies,
            servings=Servings(pool),
            admitter=Admitter(calls, insist, policies, Budgets(pool), day_counts, tokens),
            journal=journal,
            fleet=fleet,
            prompts=Prompts(config.tokenizers_dir),
            metrics=Metrics(),
            log=AccessLog(),
            control_url=config.control_url,
            readiness=Readiness(calls, policies, journal),
            open_runs=open_runs,
            turns=Turns(),
            spans=spans,
            trusted_proxies=config.trusted_proxies,
        )
        parts.metrics.sources.append(lambda: worker_state.families(parts))
        return parts

    async def close(self) -> None:
        """Close in reverse; the journal last, when nothing writes to it any more."""
        await self._stack.aclose()
