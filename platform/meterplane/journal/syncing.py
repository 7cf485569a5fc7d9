"""How a round of syncs is run beside the event loop: by the kernel (`aio`) or by a thread.

A `Syncer` makes a set of files durable and tells the loop. `ThreadSyncer` does it with any blocking
function, so it works wherever Python does and with every disk a test can think of. `DiskThread` is
the thread below it, and below the `keeper`.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

Result = TypeVar("Result")
Done = Callable[[OSError | None], None]


class Syncer(Protocol):
    """Makes files durable, one set at a time. `method` says how, for whoever operates it."""

    method: str

    def start(self, descriptors: Sequence[int], done: Done) -> None:
        """Begin; `done` is called on the loop, once, with the first error or None.

        Raises OSError if nothing was begun at all: no sync has failed, another way may be taken.
        """
        ...

    def close(self) -> None:
        """Give its resources back; nothing may be running."""
        ...


class DiskThread:
    """One thread for blocking work, in order. Answers on the loop that asked."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    def run(
        self, work: Callable[[], Result], done: Callable[[Result | None, OSError | None], None]
    ) -> None:
        """Run `work` behind what was asked before; `done` gets its result or its OSError."""
        self._pool.submit(self._run, work, done, asyncio.get_running_loop())

    def close(self) -> None:
        """Start nothing more that is still waiting; what runs is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    @staticmethod
    def _run(
        work: Callable[[], Result],
        done: Callable[[Result | None, OSError | None], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        result: Result | None = None
        failure: OSError | None = None
        try:
            result = work()
        except OSError as error:
            failure = error
        except BaseException as error:
            # Our own fault, but silence would leave everyone waiting: it ends this journal.
            failure = OSError(f"{type(error).__name__}: {error}")
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(done, result, failure)


class ThreadSyncer:
    """Syncs in a thread with a blocking function."""

    method = "thread"

    def __init__(self, sync: Callable[[int], None]) -> None:
        self._sync = sync
        self._thread = DiskThread("journal-sync")

    def start(self, descriptors: Sequence[int], done: Done) -> None:
        """Sync each of the files; the first error ends it."""

        def work() -> None:
            for descriptor in descriptors:
                self._sync(descriptor)

        self._thread.run(work, lambda _, error: done(error))

    def close(self) -> None:
        """Let the thread end."""
        self._thread.close()
