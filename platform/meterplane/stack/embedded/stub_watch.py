"""Runs inside Triton's stubs: ends this process when the one that started it has ended.

A stub that is sending an answer while its server is killed waits for the server for ever. Linux's
own parent-death signal is no cure: it is tied to the thread that forked, and Triton's loading
threads end long before it does. Copied into the stubs' environment, so it imports nothing of ours.
"""

import os
import signal
import threading
import time

POLL_S = 0.5
TIDY_UP_S = 1.5  # an idle stub ends by itself by then, and removes its shared memory


def start() -> None:
    """Watch from now on, in a thread that keeps nothing alive."""
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_S)
    time.sleep(TIDY_UP_S)
    os.kill(os.getpid(), signal.SIGKILL)
