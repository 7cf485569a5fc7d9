"""How fast a run of invoices goes to the provider, held to what it permits.

Workers are processes that sweep, as in production; the provider is the sandbox, which refuses what
is too fast and notes when each call arrives. A test key's account may be called 25 times a second
over all, a live one's 100 times, and one endpoint 25 times in either. Of a test account the run
has to use up what is permitted.
"""

import multiprocessing
import random
import secrets
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from meterplane.kernel.invariant import ensure
from tests.benchmarks.ingest.server import onboard, own_server
from tests.stripe_sandbox.rig import KEY

INVOICES, INVOICES_QUICK = 1_000, 100
WORKERS = (2, 4)
SEED = 7


def measure(quick: bool) -> bool:
    """Print the table; True if every run kept to its limits and used them."""
    context = multiprocessing.get_context("fork")  # Django is set up once in a process
    told: Any = context.SimpleQueue()
    process = context.Process(target=_run, args=(INVOICES_QUICK if quick else INVOICES, told))
    process.start()
    process.join()
    ensure(process.exitcode == 0, "the run came to its end")
    return bool(told.get())


def _run(invoices: int, told: Any) -> None:
    provider = {
        "PAYMENT_PROVIDER": "stripe",
        "STRIPE_API_KEY": KEY,
        "STRIPE_WEBHOOK_SECRET": f"whsec_{secrets.token_hex(16)}",
    }
    with (
        own_server("/var/tmp", **provider),
        tempfile.TemporaryDirectory(prefix="mp-bench-pacing-") as folder,
    ):
        told.put(_runs(Path(folder), invoices))


def _runs(folder: Path, invoices: int) -> bool:
    from billing.payments.accounts import attach_test_card
    from billing.payments.stripe import Stripe
    from tests.billing.payments import paced
    from tests.billing.world import publish_prices
    from tests.stripe_sandbox.rig import Sandbox

    arrivals = folder / "arrivals"
    sandbox = Sandbox(folder / "stripe.sqlite3", "--each-shape-once", "--arrivals", str(arrivals))
    sandbox.start()
    try:
        customers = _customers()
        for each in customers:
            attach_test_card(each.id, Stripe(KEY, sandbox.url))
        scene = paced.Scene(sandbox, arrivals, customers, publish_prices(), folder / "workers.log")
        print(f"\n  Invoices to the provider, paced; seed {SEED}\n{paced.HEAD}")
        kept = used = True
        for account in paced.ACCOUNTS:
            for workers in WORKERS:
                found = paced.run(scene, account, workers, invoices, random.Random(SEED))
                print(found.row())
                kept = kept and found.keeps_to_limits
                # What a live account permits, two cores that have the sandbox too cannot ask for.
                used = used and (found.saturates or account == "live account")
    finally:
        sandbox.stop()
    print(f"  limits: {'kept' if kept else 'EXCEEDED'}, {'used' if used else 'NOT USED UP'}")
    return kept and (used or invoices < INVOICES)  # a short run is mostly its beginning and end


def _customers() -> list[Any]:
    """Organisations with a key each, whose usage can be made up."""
    by_tenant = {key.tenant_id: key for key in onboard()}
    return [
        SimpleNamespace(id=tenant_id, project_id=key.project_id, key_id=key.id)
        for tenant_id, key in by_tenant.items()
    ]
