"""Tell a worker of an event without waiting for the broker.

The problem: a webhook must be answered at once, and a broker that is away is found out by waiting
for it. Choice: one thread for each process rings, whoever asks it to goes on. What it has not rung
when its process ends, or has no room for, the sweep of payments finds within half a minute.
"""

import logging
import threading
from queue import Full, Queue

from celery import current_app

log = logging.getLogger(__name__)

PROCESS = "payments.process_webhook"
WAITING_MAX = 1000

_waiting: Queue[str] = Queue(WAITING_MAX)
_starting = threading.Lock()
_ringer: threading.Thread | None = None


def ring(event_id: str) -> None:
    """Returns at once."""
    _start()
    try:
        _waiting.put_nowait(event_id)
    except Full:
        log.warning("the broker is slow; the sweep will process %s", event_id)


def _start() -> None:
    """The thread is this process's own: one that was forked has none yet."""
    global _ringer
    if _ringer is not None and _ringer.is_alive():
        return
    with _starting:
        if _ringer is None or not _ringer.is_alive():
            _ringer = threading.Thread(target=_ring_on, name="payments doorbell", daemon=True)
            _ringer.start()


def _ring_on() -> None:
    while True:
        event_id = _waiting.get()
        try:
            current_app.send_task(PROCESS, args=(event_id,), retry=False)
        except Exception as away:
            # Whatever it is, the next event deserves a try; nothing is lost, the sweep looks.
            log.warning("the broker is away (%s); the sweep will process %s", away, event_id)
