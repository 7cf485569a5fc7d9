"""What remains of a grant is never negative: by PostgreSQL alone, under races, on random walks."""

import random
from datetime import timedelta
from threading import Barrier, Thread

import pytest
from django.db import DatabaseError, connection, connections, transaction

from billing.credits.models import CreditGrant, CreditMovement, CreditRemaining
from billing.credits.recur import grant_due, grant_monthly
from billing.credits.refund import refund_credit
from billing.credits.terms import RecurrenceTerms
from billing.invoicing.advance import News, advance
from billing.invoicing.close import close_period
from billing.invoicing.models import Invoice
from billing.invoicing.tasks import expire_credit_of
from billing.ledger.audit import audit
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.kernel.ids import uuid7
from tenants.scoping import system_scope, tenant_scope
from tests.billing.credits.rig import check_conservation, give, remaining, spend
from tests.billing.world import utc

pytestmark = pytest.mark.django_db
committing = pytest.mark.django_db(transaction=True)  # other connections must see it
SEED = 20261130
WALK_SEED = 6  # one whose short walk meets every kind of movement


@pytest.fixture
def november(acme, prices):
    """The tenant on 2 November, its October closed."""
    close_period(acme.id, utc(11, 1))
    with clock.frozen(utc(11, 2)):
        yield acme


def move(tenant, grant_id, kind, amount, **values):
    """Write a movement behind the backs of the verbs."""
    values = {"source_id": uuid7(), "at": clock.now()} | values
    with tenant_scope(tenant.id):
        CreditMovement.objects.create(
            tenant_id=tenant.id, grant_id=grant_id, kind=kind, amount_minor=amount, **values
        )


def invoiced(tenant, prices, cents=10) -> Invoice:
    spend(tenant, prices, clock.now(), cents)
    with clock.frozen(clock.now() + timedelta(hours=1)):
        invoice = close_period(tenant.id, clock.now())
    assert invoice is not None
    return invoice


def test_the_database_refuses_what_the_verbs_would_not_do(november, prices):
    bought = give(november, 100, "bought", kind="purchased", expires_at=utc(11, 10))
    given = give(november, 100, "given", effective_at=utc(11, 5))
    invoice = invoiced(november, prices)
    here = {"invoice_id": invoice.id, "source_id": invoice.id}
    note = {"invoice_id": invoice.id}
    forbidden = [
        (given, "drawn", 101, here | {"at": utc(11, 6), "position": 9}, "not_negative"),
        (given, "drawn", 1, here | {"at": utc(11, 5), "position": 9}, "not live"),
        (bought, "drawn", 1, here | {"at": utc(11, 10, 0, 1), "position": 7}, "not live|once"),
        (bought, "expired", 1, {"at": utc(11, 9)}, "has not expired"),
        (given, "expired", 1, {"at": utc(11, 9)}, "has not expired"),
        (bought, "refunded", 91, {"source_id": bought}, "not_negative"),
        (given, "refunded", 1, {"source_id": given}, "cannot be refunded"),
        (bought, "refunded", 1, {}, "once_a_grant"),
        (bought, "restored", 11, note, "than invoice"),
        (given, "restored", 1, note, "than invoice"),
        (bought, "drawn", 1, note, "drawn_for_invoice"),
        (bought, "drawn", 1, here | {"position": 2}, "movement_once"),
        (bought, "expired", 1, note | {"at": utc(11, 10)}, "movement_kind"),
        (bought, "restored", 1, {}, "movement_kind"),
        (bought, "drawn", 0, here, "movement_positive"),
        (uuid7(), "expired", 1, {}, "no rows|violates|query returned"),
    ]
    for grant_id, kind, amount, values, said in forbidden:
        with pytest.raises(DatabaseError, match=said), transaction.atomic():
            move(november, grant_id, kind, amount, **values)
    assert remaining(november) == {"bought": 90, "given": 100}


def test_an_invoice_that_is_not_there_draws_nothing(november):
    grant_id = give(november, 100, "some")
    nowhere = uuid7()
    with transaction.atomic():
        move(november, grant_id, "drawn", 5, invoice_id=nowhere, source_id=nowhere,
             at=utc(11, 3))  # fmt: skip
        with (
            pytest.raises(DatabaseError, match="invoice_same_tenant"),
            transaction.atomic(),
            connection.cursor() as cursor,
        ):
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        transaction.set_rollback(True)


@pytest.mark.parametrize("as_system", [False, True])
def test_no_role_changes_what_is_written(november, as_system):
    give(november, 100, "some")
    statements = [
        "UPDATE credit_grant SET amount_minor = 200",
        "DELETE FROM credit_grant",
        "UPDATE credit_movement SET amount_minor = 1",
        "DELETE FROM credit_movement",
        "UPDATE credit_remaining SET remaining_minor = 200",
        "DELETE FROM credit_remaining",
        "INSERT INTO credit_remaining VALUES (gen_random_uuid(), 5, gen_random_uuid())",
        "DELETE FROM credit_recurrence",
        "UPDATE credit_recurrence SET amount_minor = 1",
    ]
    for statement in statements:
        door = system_scope("test") if as_system else tenant_scope(november.id)
        with pytest.raises(DatabaseError, match="permission denied"), transaction.atomic(), door:
            connection.cursor().execute(statement)
    assert remaining(november) == {"some": 100}


def test_credit_in_another_currency_is_refused_by_the_database_too(november):
    with (
        tenant_scope(november.id),
        pytest.raises(DatabaseError, match="not in the currency"),
        transaction.atomic(),
    ):
        CreditGrant.objects.create(
            tenant_id=november.id, kind="promotional", currency="EUR", amount_minor=5,
            effective_at=clock.now(), created_by="x", idempotency_key="x", request_digest="",
        )  # fmt: skip


def at_once(*acts) -> list[object]:
    """Do all of these at once, each on a connection of its own; what each returned or raised."""
    barrier = Barrier(len(acts))
    results: list[object] = [None] * len(acts)

    def do(number):
        barrier.wait()
        try:
            results[number] = acts[number]()
        except Exception as failure:
            results[number] = failure
        finally:
            connections.close_all()

    threads = [Thread(target=do, args=(number,)) for number in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@committing
def test_two_that_would_overdraw_together_do_not_even_without_the_verbs_lock(november):
    grant_id = give(november, 100, "some", expires_at=utc(11, 3))

    def take():
        move(november, grant_id, "expired", 70, at=utc(11, 3))

    results = at_once(take, take)
    assert sorted(type(each).__name__ for each in results) == ["IntegrityError", "NoneType"]
    assert remaining(november) == {"some": 30}


@committing
def test_closes_grants_refunds_and_expiry_at_once_conserve_every_cent(november, prices):
    """Each round: the same period closed twice, a grant, a refund, a sweep, a void of the last."""
    chance = random.Random(SEED)
    print("seed", SEED)
    last: list[Invoice] = []
    for round_no in range(3):
        began = utc(11, 2 + 2 * round_no)
        with clock.frozen(began):
            bought = give(november, 80, f"bought {round_no}", kind="purchased")
            give(november, 50, f"short {round_no}", expires_at=began + timedelta(days=1))
            spend(november, prices, began, chance.randrange(20, 200))
        ends_at = began + timedelta(days=1)
        with clock.frozen(ends_at):
            acts = [
                lambda ends_at=ends_at: close_period(november.id, ends_at),
                lambda ends_at=ends_at: close_period(november.id, ends_at),
                lambda bought=bought: refund_credit(tenant_id=november.id, grant_id=bought),
                lambda: expire_credit_of(november.id),
                lambda round_no=round_no: give(november, 10, f"more {round_no}"),
                lambda last=last: [void(november, each) for each in last],
            ]
            chance.shuffle(acts)
            results = at_once(*acts)
        unexpected = [
            each
            for each in results
            if isinstance(each, Exception) and not isinstance(each, CallerError)
        ]
        assert unexpected == []
        last = [each for each in results if isinstance(each, Invoice)]
        assert len({each.id for each in last}) == 1
        check_conservation(november)
    assert [verdict.check for verdict in audit() if not verdict.holds] == []


def void(tenant, invoice) -> bool:
    with tenant_scope(tenant.id):
        return advance(invoice.id, News("void", clock.now()))


def walk(tenant, prices, seed: int, steps: int) -> dict[str, int]:
    """A random life of credit, the books checked after each act; how often each was done."""
    print("seed", seed)
    chance = random.Random(seed)
    at = utc(9, 11)
    close = clock.now()
    done: dict[str, int] = {}
    grants, invoices = [], []
    with clock.frozen(at):
        grant_monthly(
            tenant_id=tenant.id,
            terms=RecurrenceTerms(
                kind="promotional", currency="USD", amount_minor=25, starts_at=utc(9, 15),
                rollover_max_minor=10,
            ),
            idempotency_key="walk",
            created_by="tests",
        )  # fmt: skip
    for step in range(steps):
        at = min(at + timedelta(minutes=chance.randrange(1, 105_000 // steps * 2)), close)
        act = chance.choice(("give", "give", "spend", "close", "void", "refund", "refund", "sweep"))
        with clock.frozen(at):
            if act == "give":
                ends = chance.choice((None, None, at + timedelta(days=chance.randrange(1, 30))))
                grants.append(
                    give(
                        tenant, chance.randrange(1, 90), f"{step}",
                        kind=chance.choice(("purchased", "promotional")),
                        priority=chance.choice((10, 50, 50, 90)),
                        expires_at=ends,
                        rollover_max_minor=1 if ends and chance.random() < 0.5 else None,
                        models_only=chance.choice(((), (), ("minilm",), ("other",))),
                    )
                )  # fmt: skip
            elif act in ("spend", "close"):
                spend(tenant, prices, at - timedelta(minutes=1), chance.randrange(1, 120))
                if act == "close":
                    invoices += [each for each in [close_period(tenant.id, at)] if each]
            elif act == "void" and invoices:
                void(tenant, chance.choice(invoices))
            elif act == "refund" and grants:
                try:
                    refund_credit(tenant_id=tenant.id, grant_id=chance.choice(grants))
                except CallerError:
                    act = "refund refused"
            else:
                grant_due(tenant.id)
                expire_credit_of(tenant.id)
        done[act] = done.get(act, 0) + 1
        check_conservation(tenant)
    with tenant_scope(tenant.id):
        for kind in CreditMovement.Kind.values:
            done[kind] = CreditMovement.objects.filter(kind=kind).count()
        assert all(each.total_minor >= 0 for each in Invoice.objects.all())
        assert not CreditRemaining.objects.filter(remaining_minor__lt=0).exists()
    assert [verdict.check for verdict in audit() if not verdict.holds] == []
    return done


def test_on_a_random_walk_every_cent_of_credit_is_accounted_for(acme, prices):
    done = walk(acme, prices, WALK_SEED, steps=36)
    by_payments = {"disputed", "reinstated"}  # their walks have these
    assert min(done[kind] for kind in set(CreditMovement.Kind.values) - by_payments) > 0, done


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
def test_on_long_random_walks_every_cent_of_credit_is_accounted_for(acme, prices, seed):
    walk(acme, prices, seed, steps=200)
