"""Both sides compared through the real sandbox, once what is under way has come to rest."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from billing.payments.models import PaymentFinding
from billing.payments.reconcile.clearing import clearing
from billing.payments.reconcile.days import reconcile_clearing, reconcile_day
from billing.payments.reconcile.look import UNDER_WAY, look
from meterplane.kernel import clock
from tenants.scoping import system_scope
from tests.stripe_sandbox.rig import Sandbox

DAY = timedelta(days=1)
LATER = UNDER_WAY + timedelta(minutes=1)


@pytest.fixture
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """Of each test its own: what others left there would be found."""
    running = Sandbox(tmp_path_factory.mktemp("stripe") / "stripe.sqlite3").start()
    yield running
    running.stop()


def reconciled(stripe) -> list[tuple[str, str, str]]:
    """(kind, problem, sentence) of all that is open after both days were compared."""
    with clock.frozen(clock.now() + LATER):
        today = clock.now().date()
        for day in (today - DAY, today):
            reconcile_day(stripe, day)
        reconcile_clearing(stripe)
    with system_scope("test"):
        return list(
            PaymentFinding.objects.filter(closed_at=None)
            .order_by("kind", "problem")
            .values_list("kind", "problem", "said")
        )


def differing(stripe) -> list[tuple[str, str, str]]:
    """The same of one look at two days, of which nothing is stored."""
    with clock.frozen(clock.now() + LATER):
        now = clock.now()
        looked = [*look(stripe, now - DAY, now + DAY), clearing()]
    return sorted((of.kind, each.problem, each.said) for of in looked for each in of.found)
