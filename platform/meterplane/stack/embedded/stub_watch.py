"""Runs inside Triton's stubs: ends this process at once when its server has ended.

A stub that is sending an answer, or asking whether it is cancelled, while its server is killed
waits for the server for ever, and the second of these holds Python's global lock: no thread of ours
could help it. Linux's parent-death signal is no cure either: it is tied to the thread that forked,
and Triton's loading threads end long before it does. So the server holds a named pipe open, and
the kernel kills whoever listens on it when the last writer is gone. Copied into the stubs'
environment, so it imports nothing of ours.
"""

import fcntl
import os
import signal

SERVER_END = 9  # the server's descriptor of the pipe, which its children inherit


def listen(pipe: str) -> None:
    """Be killed when no other process holds `pipe` open for writing any more."""
    os.close(SERVER_END)
    descriptor = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
