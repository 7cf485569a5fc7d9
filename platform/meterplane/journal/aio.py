"""fdatasync without a thread: Linux native AIO, its end told by an eventfd on the event loop.

A thread would do, and is what `syncing` falls back to; but a lone commit through one pays two
hand-overs of the interpreter lock, about as long as the disk takes. `io_submit` queues the sync in
the kernel and returns; the loop wakes when it is done. Of io_uring, which could do the same,
container runtimes switch off all calls; these four they allow.

Guarantees: `done` is called once, on the loop, with the first error of any of the files (negative
`res` of its event) or None. A refused submission raises before anything was begun. Whether this
machine can do it at all is proven by a real sync in the constructor. The calls go to the kernel by
number, so only machines whose numbers stand here are tried (Linux syscall tables; `struct iocb` and
`struct io_event` from `linux/aio_abi.h`).
"""

import asyncio
import contextlib
import ctypes
import errno
import os
import platform
import select
import struct
import sys
from collections.abc import Callable, Sequence

from meterplane.kernel.invariant import ensure

# io_setup, io_destroy, io_submit, io_getevents
_NUMBERS = {"x86_64": (206, 207, 209, 208), "aarch64": (0, 1, 2, 4)}
_FDSYNC = 3  # IOCB_CMD_FDSYNC, since Linux 4.18
_RESFD = 1  # IOCB_FLAG_RESFD: count completions in aio_resfd
# aio_data, aio_key, aio_rw_flags, aio_lio_opcode, aio_reqprio, aio_fildes, aio_buf, aio_nbytes,
# aio_offset, aio_reserved2, aio_flags, aio_resfd
_IOCB = struct.Struct("<QIIHhIQQqQII")
_EVENT = struct.Struct("<QQqq")  # data, obj, res, res2
_FILES_AT_ONCE = 64  # the open segment and those just full; more of them take a second submission
_PROOF_TIMEOUT_MS = 10_000  # a sync of an empty file; a slower disk is not one to serve with

Done = Callable[[OSError | None], None]


class AioSyncer:
    """Syncs files on one event loop. One `start` at a time."""

    method = "aio"

    def __init__(self, descriptor: int) -> None:
        """Set up, and prove it by syncing `descriptor`. Raises OSError where it cannot work."""
        numbers = _NUMBERS.get(platform.machine())
        if numbers is None or sys.platform != "linux" or sys.maxsize <= 2**32:
            raise OSError(errno.ENOSYS, "no native AIO is known for this machine")
        setup, self._destroy_number, self._submit_number, self._events_number = numbers
        # PyDLL keeps the interpreter lock: these calls do not wait, and to take the lock back from
        # another thread would cost more than they do.
        self._call = ctypes.PyDLL(None, use_errno=True).syscall
        self._context = ctypes.c_ulong(0)
        self._checked(setup, ctypes.c_long(_FILES_AT_ONCE), ctypes.byref(self._context))
        self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._blocks = ctypes.create_string_buffer(_IOCB.size * _FILES_AT_ONCE)
        start = ctypes.addressof(self._blocks)
        self._pointers = (ctypes.c_void_p * _FILES_AT_ONCE)(
            *(start + number * _IOCB.size for number in range(_FILES_AT_ONCE))
        )
        self._events = ctypes.create_string_buffer(_EVENT.size * _FILES_AT_ONCE)
        self._getevents_arguments = (
            ctypes.c_long(self._events_number), self._context, ctypes.c_long(0),
            ctypes.c_long(_FILES_AT_ONCE), self._events, None,
        )  # fmt: skip
        self._loop: asyncio.AbstractEventLoop | None = None
        self._done: Done | None = None
        self._error: OSError | None = None
        self._submitted = 0  # of these files the kernel has not told yet
        self._waiting: Sequence[int] = ()
        try:
            self._prove(descriptor)
        except OSError:
            self.close()
            raise

    def start(self, descriptors: Sequence[int], done: Done) -> None:
        """Begin to sync these files. Raises OSError if the kernel takes none of them."""
        ensure(self._done is None, "a sync is running already")
        ensure(descriptors, "nothing to sync")
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._eventfd, self._collect)
        self._error = None
        self._waiting = descriptors
        self._submit()
        self._done = done

    def close(self) -> None:
        """Give everything back. Waits for what runs: do not call it on a disk that hangs."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._eventfd)
        self._call(ctypes.c_long(self._destroy_number), self._context)
        os.close(self._eventfd)

    def _submit(self) -> None:
        count = min(len(self._waiting), _FILES_AT_ONCE)
        for number in range(count):
            descriptor = self._waiting[number]
            _IOCB.pack_into(
                self._blocks, number * _IOCB.size,
                number, 0, 0, _FDSYNC, 0, descriptor, 0, 0, 0, 0, _RESFD, self._eventfd,
            )  # fmt: skip
        taken = self._checked(
            self._submit_number, self._context, ctypes.c_long(count), self._pointers
        )
        self._submitted = taken
        self._waiting = self._waiting[taken:]

    def _collect(self) -> None:
        """The eventfd is readable: some or all of what was submitted is done."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._eventfd)
        count = self._call(*self._getevents_arguments)
        if count < 0:
            self._error = self._error or _last_error()
            count = self._submitted
        else:
            self._error = self._error or first_error(self._events, count)
        self._submitted -= count
        if self._submitted:
            return
        if self._waiting and self._error is None:
            try:
                self._submit()
            except OSError as error:
                self._error = error
            else:
                return
        done, self._done = self._done, None
        if done is not None:
            done(self._error)

    def _prove(self, descriptor: int) -> None:
        self._waiting = (descriptor,)
        self._submit()
        poll = select.poll()
        poll.register(self._eventfd, select.POLLIN)
        if not poll.poll(_PROOF_TIMEOUT_MS):
            raise TimeoutError(errno.ETIMEDOUT, "no answer from native AIO")
        self._collect()
        if self._error is not None:
            raise self._error
        ensure(self._submitted == 0, "one sync was submitted and another number came back")

    def _checked(self, number: int, *arguments: object) -> int:
        result = int(self._call(ctypes.c_long(number), *arguments))
        if result < 0:
            raise _last_error()
        return result


def first_error(events: ctypes.Array[ctypes.c_char], count: int) -> OSError | None:
    """The first failure among `count` io_events: `res` is 0 or a negative errno."""
    for number in range(count):
        result: int = _EVENT.unpack_from(events, number * _EVENT.size)[2]
        if result < 0:
            return OSError(-result, os.strerror(-result))
    return None


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
