"""The audit of the night: whole, whoever is killed on the way, and loud about what is wrong."""

from datetime import timedelta

import pytest

from billing.invoicing.advance import News, advance
from billing.ledger import audit_night as night
from billing.ledger.audit_night import audit_night, is_overdue, last_audit
from billing.ledger.audit_runs import AuditRun
from billing.ledger.tasks import audit_nightly
from meterplane.kernel import clock
from meterplane.worker.app import app as celery
from tenants.models import Organisation
from tenants.scoping import system_scope, tenant_scope
from tests.billing.invoicing.drafts import draft
from tests.billing.ledger.rig import tamper
from tests.billing.world import utc

pytestmark = pytest.mark.django_db(transaction=True)
AT = utc(11, 2) + timedelta(hours=3)


@pytest.fixture
def invoice(acme, prices):
    made = draft(acme, prices, [("requests", 300)])
    with tenant_scope(acme.id):
        advance(made.id, News("open", clock.now()))
    return made


@pytest.fixture
def many(acme, monkeypatch):
    """Seven organisations, noted two at a time."""
    monkeypatch.setattr(night, "NOTED_EVERY", 2)
    with system_scope("a test"):
        for number in range(7 - Organisation.objects.count()):
            Organisation.objects.create(slug=f"o{number}", name=f"O {number}", currency="USD")


def runs() -> list[tuple[int, bool]]:
    """Organisations and whether it is finished, of each run."""
    with system_scope("a test"):
        return [(run.organisations, run.finished_at is not None) for run in AuditRun.objects.all()]


def test_a_night_is_audited_once_and_proved(invoice, many):
    run = audit_night(AT)
    assert (run.organisations, run.entries, run.wrong, run.holds) == (7, 1, 0, True)
    assert audit_night(AT + timedelta(hours=5)) is None
    assert audit_night(AT + timedelta(hours=22)) is None, "before the next night"
    audit_night(AT + timedelta(hours=23))
    assert runs() == [(7, True), (7, True)]


@pytest.mark.parametrize("done", [0, 1, 5])
def test_one_that_is_cut_short_is_gone_on_with_where_it_was(many, done):
    asked = iter(range(100))
    cut = audit_night(AT, stop=lambda: next(asked) > done)
    assert cut.finished_at is None
    assert cut.organisations < 7
    run = audit_night(AT)
    assert (run.organisations, run.holds) == (7, True)


def test_of_two_workers_one_goes_on(many, monkeypatch):
    others = []
    audited = night._audited

    def meanwhile(tenant_id):
        if not others:
            others.append(True)
            assert audit_night(AT).organisations == 7
        return audited(tenant_id)

    monkeypatch.setattr(night, "_audited", meanwhile)
    assert audit_night(AT) is None
    assert runs() == [(7, True)]


def test_what_is_wrong_is_counted_kept_and_told(acme, invoice, many, caplog):
    tamper("UPDATE ledger_leg SET amount_minor = 301 WHERE account = 'receivable'")
    run = audit_night(AT)
    assert run.holds is False
    assert {found["check"] for found in run.findings} == {
        "sums", "contents", "balances", "trial", "invoices",
    }  # fmt: skip
    assert {found["organisation"] for found in run.findings} == {str(acme.id)}
    assert run.wrong == len(run.findings)
    assert f"found {run.wrong} things wrong" in caplog.text
    assert last_audit() == run


def test_an_organisation_that_cannot_be_audited_keeps_nobody_waiting(acme, many, monkeypatch):
    audited = night.audit

    def failing(tenant_id):
        if tenant_id == acme.id:
            raise ZeroDivisionError("a source is broken")
        return audited(tenant_id)

    monkeypatch.setattr(night, "audit", failing)
    run = audit_night(AT)
    assert (run.organisations, run.wrong) == (7, 1)
    assert run.findings[0]["what"] == "could not be audited: a source is broken"


def test_an_audit_that_does_not_come_to_its_end_is_overdue(many):
    audit_night(AT)
    audit_night(AT + timedelta(days=1), stop=lambda: True)
    run = last_audit()
    assert run.on == AT.date()
    assert not is_overdue(run, AT + timedelta(days=2))
    assert is_overdue(run, AT + timedelta(days=3))


def test_the_task_rings_again_for_what_is_left(many, monkeypatch):
    rung = []
    monkeypatch.setattr("billing.ledger.tasks.AUDIT_FOR_S", -1)
    monkeypatch.setattr(audit_nightly, "delay", lambda: rung.append(True))
    audit_nightly()
    assert rung == [True]
    assert [finished for _, finished in runs()] == [False]
    assert "ledger.audit_nightly" in {each["task"] for each in celery.conf.beat_schedule.values()}
