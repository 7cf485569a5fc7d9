"""Reads that callers share: who asks for what is being read already waits for that read.

Guarantees: a caller that leaves takes the answer from nobody. A read that fails fails all who share
it, and the next one reads again.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class SharedReads(Generic[Key, Value]):
    """The reads under way, by what they read."""

    def __init__(self, read: Callable[[Key], Coroutine[Any, Any, Value]]) -> None:
        self._read = read
        self._reading: dict[Key, asyncio.Task[Value]] = {}

    async def read(self, key: Key) -> Value:
        """What `read(key)` answers or raises."""
        task = self._reading.get(key)
        if task is None:
            task = self._reading[key] = asyncio.create_task(self._read(key))
            task.add_done_callback(lambda _: self._reading.pop(key, None))
        # Shielded: a caller that leaves must not take the answer from the others.
        return await asyncio.shield(task)
