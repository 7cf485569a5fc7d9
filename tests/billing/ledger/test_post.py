"""One entry for one source, whatever is repeated or raced; and nothing that is not whole."""

import random
from datetime import timedelta
from threading import Barrier, Thread

import pytest
from django.db import connections, transaction

from billing.ledger.audit import audit
from billing.ledger.entry import AMOUNT_MINOR_MAX, LEGS_MAX
from billing.ledger.models import LedgerEntry, LedgerLeg
from billing.ledger.post import Leg, PostedDifferently, post
from billing.ledger.queries import entries_of
from meterplane.kernel import clock
from meterplane.kernel.invariant import InvariantBroken
from meterplane.kernel.money import UnknownCurrency
from tenants.scoping import TenantScopeMissing, system_scope, tenant_scope
from tests.billing.ledger.rig import as_text, held, legs

pytestmark = pytest.mark.django_db
committing = pytest.mark.django_db(transaction=True)  # other connections must see it
SALE = "receivable 205, revenue:input_tokens -200, revenue:requests -5"


def posted(tenant, moved: str = SALE, **other):
    values = {"kind": "test.sale", "source_id": "1", "currency": "USD", "at": clock.now()} | other
    with tenant_scope(tenant.id):
        return post(legs=legs(moved), **values)


def entries(tenant) -> int:
    with tenant_scope(tenant.id):
        return LedgerEntry.objects.count()


def at_once(*acts):
    """Each act in a thread and on a connection of its own; what each answered or raised."""
    barrier, outcomes = Barrier(len(acts)), [None] * len(acts)

    def run(place, act):
        barrier.wait()
        try:
            outcomes[place] = act()
        except Exception as failure:
            outcomes[place] = failure
        finally:
            connections.close_all()

    threads = [Thread(target=run, args=pair) for pair in enumerate(acts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_an_entry_is_posted_with_its_legs_in_order_and_moves_the_balances(acme):
    entry_id = posted(acme, memo="November")
    with tenant_scope(acme.id):
        (view,) = entries_of("1")
    assert (view.id, view.kind, view.currency, view.memo) == (
        entry_id, "test.sale", "USD", "November",
    )  # fmt: skip
    assert view.effective_at == clock.now()
    assert as_text(view.legs) == SALE
    posted(acme, "payments 200, receivable -200", source_id="2")
    assert held(acme.id) == {
        "receivable": 5, "payments": 200, "revenue:input_tokens": -200, "revenue:requests": -5,
    }  # fmt: skip


def test_the_same_content_again_is_the_first_entry(acme):
    first = posted(acme)
    assert posted(acme) == first
    reordered = "revenue:requests -5, receivable 205, revenue:input_tokens -200"
    assert posted(acme, reordered, at=clock.now() + timedelta(hours=1), memo="again") == first
    assert entries(acme) == 1
    assert held(acme.id)["receivable"] == 205


@pytest.mark.parametrize(
    "other",
    [
        {"moved": "receivable 206, revenue:input_tokens -201, revenue:requests -5"},
        {"moved": "receivable 205, revenue:input_tokens -205"},
        {"moved": "receivable -205, revenue:input_tokens 200, revenue:requests 5"},
        {"currency": "EUR"},
    ],
)
def test_other_content_of_the_same_source_raises_and_changes_nothing(acme, other):
    posted(acme)
    with pytest.raises(PostedDifferently, match=r"test\.sale of 1"):
        posted(acme, **other)
    assert entries(acme) == 1
    assert held(acme.id)["receivable"] == 205


def test_another_kind_source_or_tenant_is_another_entry(acme, onboard):
    made = {posted(acme), posted(acme, kind="test.other"), posted(acme, source_id="2")}
    made.add(posted(onboard("other")))
    assert len(made) == 4


@pytest.mark.parametrize(
    ("moved", "other"),
    [
        ("receivable 205, revenue:requests -204", {}),
        ("receivable 205", {}),
        ("", {}),
        ("receivable 5, revenue:requests 0, payments -5", {}),
        ("receivable 5, cash -5", {}),
        ("receivable 5, revenue:a:b -5", {}),
        (f"receivable {AMOUNT_MINOR_MAX + 1}, payments {-AMOUNT_MINOR_MAX - 1}", {}),
        ("receivable 1, payments -1," * (LEGS_MAX // 2) + "receivable 1, payments -1", {}),
        (SALE, {"kind": "Sale"}),
        (SALE, {"kind": ""}),
        (SALE, {"source_id": ""}),
        (SALE, {"source_id": "x" * 101}),
        (SALE, {"memo": "x" * 201}),
        (SALE, {"at": clock.now().replace(tzinfo=None)}),
    ],
)
def test_what_is_not_whole_is_refused_before_anything_is_written(acme, moved, other):
    with pytest.raises(InvariantBroken):
        posted(acme, moved, **other)
    assert entries(acme) == 0


@pytest.mark.parametrize("amount", [2.0, True, "2"])
def test_an_amount_that_is_not_an_integer_is_refused(acme, amount):
    with pytest.raises(InvariantBroken), tenant_scope(acme.id):
        post(
            kind="test.sale", source_id="1", currency="USD", at=clock.now(),
            legs=[Leg("receivable", amount), Leg("payments", -2)],
        )  # fmt: skip


def test_a_currency_without_known_digits_is_refused(acme):
    with pytest.raises(UnknownCurrency):
        posted(acme, currency="XXX")


def test_the_largest_entry_fits(acme):
    half = LEGS_MAX // 2
    moved = f"receivable {AMOUNT_MINOR_MAX}," * half + f"payments {-AMOUNT_MINOR_MAX}," * half
    posted(acme, moved)
    assert held(acme.id)["receivable"] == half * AMOUNT_MINOR_MAX


def test_only_in_a_tenants_door(db):
    for door in (lambda: transaction.atomic(), lambda: system_scope("test")):
        with pytest.raises(TenantScopeMissing), door():
            post(kind="a", source_id="1", currency="USD", legs=legs(SALE), at=clock.now())


def test_what_is_rolled_back_leaves_neither_entry_nor_balance(acme):
    with transaction.atomic():
        posted(acme)
        transaction.set_rollback(True)
    assert entries(acme) == 0
    assert held(acme.id) == {}


@committing
def test_a_source_that_is_posted_by_many_at_once_is_one_entry(acme):
    answers = at_once(*[lambda: posted(acme)] * 6)
    assert len(set(answers)) == 1
    assert not isinstance(answers[0], Exception)
    with tenant_scope(acme.id):
        assert (LedgerEntry.objects.count(), LedgerLeg.objects.count()) == (1, 3)
    assert held(acme.id)["receivable"] == 205


@committing
def test_of_different_contents_at_once_one_is_posted_and_the_others_raise(acme):
    answers = at_once(
        *[lambda n=n: posted(acme, f"receivable {n}, revenue:requests {-n}") for n in range(1, 6)]
    )
    assert sum(isinstance(answer, PostedDifferently) for answer in answers) == 4
    assert entries(acme) == 1


@committing
def test_transactions_of_many_entries_in_any_order_neither_deadlock_nor_lose_a_cent(acme):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    accounts = ["receivable", "payments", "refunds", "breakage", "revenue:a", "revenue:b"]
    batches = [
        [(f"{worker}.{step}", chance.sample(accounts, 2)) for step in range(8)]
        for worker in range(4)
    ]

    def work(batch):
        # All in one transaction: what the first touches is held until the last is posted.
        with tenant_scope(acme.id):
            for source, (debited, credited) in batch:
                moved = (Leg(debited, 1), Leg(credited, -1))
                post(kind="a", source_id=source, currency="USD", legs=moved, at=clock.now())
        return "done"

    assert at_once(*[lambda batch=batch: work(batch) for batch in batches]) == ["done"] * 4
    expected = dict.fromkeys(accounts, 0)
    for _, (debited, credited) in [step for batch in batches for step in batch]:
        expected[debited] += 1
        expected[credited] -= 1
    assert held(acme.id) == {name: amount for name, amount in expected.items() if amount}
    assert all(verdict.holds for verdict in audit() if verdict.check != "kinds")
