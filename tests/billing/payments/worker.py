"""`python -m tests.billing.payments.worker`: sweeps of payments in a process of its own.

What Celery's worker does when the schedule rings, again and again until it is told to stop, so
that a test can start several and kill them. Its environment names the database, the sandbox and,
perhaps, the place where it dies (`meterplane.kernel.failpoints`).
"""

import argparse
import signal
import sys
import time
from types import FrameType

import django

BETWEEN_SWEEPS_S = 0.2


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.billing.payments.worker", description=__doc__)
    parser.add_argument("--sweeps", type=int, help="how many; without end if it is not said")
    parser.add_argument("--later-s", type=int, default=0, help="how far its clock is ahead")
    parser.add_argument("--retries", type=int, help="those of Stripe's client")
    parser.add_argument("--account-rate", type=int, help="calls a second of the account")
    parser.add_argument("--endpoint-rate", type=int, help="calls a second of one endpoint")
    asked = parser.parse_args()
    django.setup()
    arrange(asked)
    left = asked.sweeps
    signal.signal(signal.SIGTERM, stop)
    from billing.payments import tasks

    while left is None or left > 0:
        tasks.sweep()
        if left is None:
            time.sleep(BETWEEN_SWEEPS_S)
        else:
            left -= 1
    return 0


def arrange(asked: argparse.Namespace) -> None:
    """What is otherwise in this process than in production, as it was asked for."""
    from billing.payments.stripe import account, client
    from meterplane.kernel import clock

    later_ns = asked.later_s * 1_000_000_000
    if later_ns:
        clock.now_ns = lambda: time.time_ns() + later_ns
    if asked.retries is not None:
        client.PATIENT = client.Patience(
            retries=asked.retries, pauses_s=client.PAUSES_S[: asked.retries]
        )
    if asked.account_rate:
        account.TEST_RATE_MAX = asked.account_rate
    if asked.endpoint_rate:
        account.ENDPOINT_RATE_MAX = asked.endpoint_rate


def stop(_signal: int, _frame: FrameType | None) -> None:
    """As Celery's worker that is told to: what is under way is found by the next sweep."""
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())
