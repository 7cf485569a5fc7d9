"""Lua calls to Redis, combined: calls that arrive while one is in flight leave together.

One task owns the connection. Callers wait on futures, so a caller that is cancelled never touches
the connection and can never leave another's answer in it. A Redis that does not answer within
`ADMISSION_TIMEOUT_S` is down for us: its connection is dropped and everyone waiting is told.
No call is repeated here: an admission that was answered into a broken connection has reserved.
"""

import asyncio
import contextlib
import logging
from collections import deque
from pathlib import Path
from typing import Any

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError

from meterplane.kernel.errors import WorldError
from meterplane.kernel.limits import ADMISSION_TIMEOUT_S

log = logging.getLogger("meterplane.gateway")

CALLS_PER_TRIP_MAX = 256
CALLS_WAITING_MAX = 4096  # 16 trips: at 1 ms each the last waits 16 ms, else Redis is down anyway
_FOLDER = Path(__file__).parent


class LuaUnavailable(WorldError):
    """Redis did not answer. Nothing is known about the call: it may have happened."""

    def __init__(self) -> None:
        super().__init__(
            "admission_unavailable",
            "Budgets cannot be checked just now, so nothing is admitted. Try again shortly.",
            retry_after_s=1,
        )


class Script:
    """A Lua script beside this module, sent by its SHA."""

    def __init__(self, name: str) -> None:
        self.source = (_FOLDER / name).read_text()
        self.sha = ""


def connect(url: str) -> "redis.Redis":
    """A client that never repeats a command by itself."""
    return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0))


class LuaCalls:
    """One worker's connection to the admission Redis."""

    def __init__(self, client: "redis.Redis", scripts: list[Script]) -> None:
        self._client = client
        self._scripts = scripts
        self._waiting: deque[tuple[Script, list[str], list[str], asyncio.Future[Any]]] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.trips = 0
        self.calls = 0

    def start(self) -> None:
        """Begin to send. Needs a running event loop."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop sending; whoever still waits is told that Redis is unavailable."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        while self._waiting:
            self._fail(self._waiting.popleft()[3])
        await self._client.aclose()

    async def call(self, script: Script, keys: list[str], arguments: list[str]) -> Any:
        """Run the script. Raises `LuaUnavailable`; the call may have happened nevertheless."""
        if len(self._waiting) >= CALLS_WAITING_MAX:
            raise LuaUnavailable
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((script, keys, arguments, future))
        self._wake.set()
        return await future

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            batch = [
                self._waiting.popleft() for _ in range(min(len(self._waiting), CALLS_PER_TRIP_MAX))
            ]
            if not self._waiting:
                self._wake.clear()
            if not batch:
                continue
            try:
                async with asyncio.timeout(ADMISSION_TIMEOUT_S):
                    answers = await self._trip(batch)
            except Exception as problem:
                # Whatever it was, this task must live: nobody else answers those who wait.
                log.warning("the admission Redis failed: %s", type(problem).__name__)
                for *_, future in batch:
                    self._fail(future)
                await self._drop_connection()
                continue
            for (*_, future), answer in zip(batch, answers, strict=True):
                if future.done():
                    continue
                if isinstance(answer, Exception):
                    self._fail(future)
                else:
                    future.set_result(answer)

    async def _drop_connection(self) -> None:
        """It may hold half an answer: it must not be used again."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(ADMISSION_TIMEOUT_S):
                await self._client.connection_pool.disconnect(inuse_connections=True)

    async def _trip(self, batch: list[Any]) -> list[Any]:
        self.trips += 1
        self.calls += len(batch)
        if any(not script.sha for script in self._scripts):
            await self._load()
        answers = await self._send(batch)
        if any(isinstance(answer, NoScriptError) for answer in answers):
            # This Redis was restarted or flushed; the scripts that were refused did nothing.
            await self._load()
            again = [i for i, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
            for i, answer in zip(again, await self._send([batch[i] for i in again]), strict=True):
                answers[i] = answer
        return answers

    async def _send(self, batch: list[Any]) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for script, keys, arguments, _ in batch:
            pipeline.evalsha(script.sha, len(keys), *keys, *arguments)
        answers: list[Any] = await pipeline.execute(raise_on_error=False)
        return answers

    async def _load(self) -> None:
        for script in self._scripts:
            script.sha = await self._client.script_load(script.source)

    @staticmethod
    def _fail(future: "asyncio.Future[Any]") -> None:
        if not future.done():
            future.set_exception(LuaUnavailable())
