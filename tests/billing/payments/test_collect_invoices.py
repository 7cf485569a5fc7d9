"""`manage.py collect-invoices`: to the end, telling how far it is; stopped, it loses nothing."""

import io
import re
import time
from types import SimpleNamespace

import pytest
from django.core.management import CommandError, call_command

from billing.invoicing.models import Invoice
from billing.payments.accounts import attach_test_card
from billing.payments.management.commands import collect_invoices as command
from billing.payments.mirror import park
from billing.payments.models import PaymentRun
from tenants.scoping import system_scope, tenant_scope
from tests.conftest import OnboardedOrganisation

pytestmark = pytest.mark.django_db(transaction=True)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "TOLD_EVERY_S", 0.05)


@pytest.fixture
def ctrl_c(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """It is pressed when the command has told how far it is for the first time."""

    def pressed(_: object) -> None:
        raise KeyboardInterrupt

    clock = SimpleNamespace(sleep=pressed, monotonic_ns=time.monotonic_ns)
    monkeypatch.setattr(command, "time", clock)
    return clock


@pytest.fixture
def three(onboard, billed, stripe) -> list[OnboardedOrganisation]:
    """Organisations with a card and an invoice that waits."""
    made = [onboard(slug) for slug in ("acme", "beta", "gamma")]
    for tenant in made:
        attach_test_card(tenant.id, stripe)
        billed(tenant)
    return made


def run(out: io.StringIO, **options: object) -> str:
    try:
        call_command("collect_invoices", stdout=out, **options)
    finally:
        said = out.getvalue()
    return said


def states() -> list[str]:
    with system_scope("test"):
        return sorted(Invoice.objects.values_list("collection_state", flat=True))


def test_all_that_waits_is_collected_once_and_told_in_lines(three, there):
    out = io.StringIO()
    said = run(out, at_once=2)
    assert states() == ["done"] * 3
    assert re.search(r"^\S+ \S+ 3 of 3 done, 0 wait, 0 parked$", said, re.MULTILINE), said
    assert "Nothing waits and nothing is parked." in said
    assert "\r" not in said
    assert [len(there.invoices(each)) for each in three] == [1, 1, 1]


def test_a_terminal_shows_one_line_that_is_written_over(three):
    said = run(Terminal(), at_once=1)
    assert "\r[" in said
    assert re.search(r"\r\[#*\.*\] \d of 3 done, \d wait, 0 parked, rate .*, time left ", said)


def test_ctrl_c_finishes_what_is_under_way_and_the_next_start_does_the_rest(three, there, ctrl_c):
    out = io.StringIO()
    with pytest.raises(SystemExit) as ended:
        run(out, at_once=1)
    assert ended.value.code == 130
    said = re.search(r"Stopped: (\d) done, (\d) wait, 0 parked. Nothing is lost", out.getvalue())
    assert said, out.getvalue()
    done, waiting = int(said[1]), int(said[2])
    assert (done + waiting, states().count("done")) == (3, done)
    with system_scope("test"):
        leases = list(PaymentRun.objects.values_list("lease_until", flat=True))
    assert leases == [None] * done, "what was under way is finished and let go"
    ctrl_c.sleep = time.sleep
    run(io.StringIO())
    assert states() == ["done"] * 3
    assert [len(there.invoices(each)) for each in three] == [1, 1, 1]


def test_what_is_parked_is_named_with_its_reason_and_is_a_failure(three):
    with tenant_scope(three[0].id):
        invoice = Invoice.objects.get()
        park(invoice.tenant_id, invoice.id, "Ours and theirs differ:\nline 2")
    out = io.StringIO()
    with pytest.raises(CommandError, match="1 invoices are parked"):
        run(out)
    assert f"parked: acme {invoice.id}  line 2\n" in out.getvalue()


def test_a_key_that_does_not_work_ends_it_with_the_reason(three, settings):
    settings.STRIPE_API_KEY = ""
    with pytest.raises(CommandError, match="STRIPE_API_KEY is empty"):
        run(io.StringIO())
    assert states() == ["pending"] * 3


def test_a_right_that_the_key_lacks_ends_it_and_is_named(three, settings, sandbox):
    key = "rk_test_collector0123456789"
    sandbox.control("/restricted_keys", {"key": key, "permissions": ["rak_customer_write"]})
    settings.STRIPE_API_KEY = key
    with pytest.raises(CommandError, match="'rak_invoice_write' permission would allow"):
        run(io.StringIO())
    assert states() == ["pending"] * 3


def test_watching_collects_nothing(three, ctrl_c):
    out = io.StringIO()
    with pytest.raises(SystemExit):
        run(out, watch=True)
    assert "0 of 3 done, 3 wait, 0 parked" in out.getvalue()
    assert states() == ["pending"] * 3


@pytest.mark.parametrize("count", [0, 33])
def test_how_many_at_once_is_bounded(count):
    with pytest.raises(CommandError, match="1 to 32"):
        run(io.StringIO(), at_once=count)
