"""What a week of usage says: how long open answers are, and what requests over-hold."""

import random
from datetime import timedelta

import pytest

from meterplane.catalog.models import Model, OverHold
from meterplane.kernel import clock
from meterplane.metering.ingest import ingest_segment
from meterplane.metering.reservations import AnswersOfLength
from meterplane.policy.compile import recompile_everyone
from meterplane.policy.learn import ANSWERS_MIN, learn_reservations, output_tokens_p99
from meterplane.policy.tasks import learn_reservations as task
from tests.metering.segments import message, settle
from tests.policy.conftest import policy_of


def lengths(*answers: tuple[int, int]) -> list[AnswersOfLength]:
    """Of `(needed, stop)` pairs: each answer was cut at its stop, if it needed as much."""
    found: dict[int, list[int]] = {}
    for needed, stop in answers:
        counts = found.setdefault(min(needed, stop), [0, 0, 0])
        counts[0] += 1
        counts[1] += 1
        counts[2] += needed < stop
    return [AnswersOfLength(tokens, *counts) for tokens, counts in sorted(found.items())]


def test_with_nothing_cut_it_is_the_99th_percentile_rounded_up():
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    for _ in range(50):
        needed = sorted(draw.randrange(1, 900) for _ in range(draw.randrange(200, 3000)))
        found = output_tokens_p99(lengths(*((each, 1024) for each in needed)))
        p99 = needed[-(-len(needed) * 99 // 100) - 1]
        assert found == max(16, -(-p99 // 16) * 16)


def test_two_hundred_answers_are_needed_and_are_enough():
    assert output_tokens_p99(lengths(*[(30, 256)] * (ANSWERS_MIN - 1))) is None
    assert output_tokens_p99(lengths(*[(30, 256)] * ANSWERS_MIN)) == 32
    assert output_tokens_p99([]) is None
    left = [AnswersOfLength(5, 900, 0, 0), AnswersOfLength(30, 199, 199, 199)]
    assert output_tokens_p99(left) is None, "those a caller left did not finish"


def test_no_bound_is_below_the_least_that_is_worth_its_input():
    assert output_tokens_p99(lengths(*[(1, 256)] * 300)) == 16


def test_it_is_not_known_where_more_than_one_in_a_hundred_was_cut():
    known = [(40, 64)] * 990
    assert output_tokens_p99(lengths(*known, *[(900, 64)] * 10)) == 48
    assert output_tokens_p99(lengths(*known, *[(900, 64)] * 11)) is None
    # Behind where those were cut, the others tell: each of them stands for its share of the cut.
    told = [(200, 256)] * 50
    assert output_tokens_p99(lengths(*known, *[(900, 64)] * 11, *told)) == 208


def test_answers_that_a_short_budget_cut_do_not_teach_that_answers_are_short():
    whole = lengths(*[(100, 256)] * 300)
    cut = lengths(*[(100, 256)] * 300, *[(100, 16)] * 3000)
    assert output_tokens_p99(cut) == output_tokens_p99(whole) == 112


def test_it_does_not_sink_week_by_week_under_its_own_bound():
    """Counted as if they had ended, the answers it cuts lower it every week, and never raise it."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)

    def needed() -> int:
        return min(int(draw.lognormvariate(4, 0.6)) + 1, 1024)

    truth = sorted(needed() for _ in range(200_000))
    stop, cut = 1024, 0
    weeks, of_each = 60, 2000
    stops = []
    for _ in range(weeks):
        answers = [(needed(), stop) for _ in range(of_each)]
        cut += sum(wanted >= at for wanted, at in answers)
        stop = output_tokens_p99(lengths(*answers)) or 1024
        stops.append(stop)
    # 1 % by intent; a bound learned from 2,000 answers is off by a fifth of that share or so.
    assert cut / (weeks * of_each) < 0.02
    p97 = truth[len(truth) * 97 // 100]
    assert min(stops) > p97
    assert any(each < 1024 for each in stops)


def reserve_by(name: str) -> None:
    Model.objects.filter(name="tiny-lm").update(reserve=name)
    recompile_everyone()


def answered(tenant, count: int, tokens_out: int, stop: int = 256, **fields) -> None:
    """So many answers, each by itself, that nobody bounded."""
    ingest_segment(
        message(
            [
                settle(tenant, tokens_out=tokens_out, tokens_out_stop=stop, **fields)
                for _ in range(count)
            ]
        )
    )


@pytest.mark.django_db
def test_history_reaches_every_key_where_the_operator_chose_it(selling):
    reserve_by("history")
    before = policy_of(selling)
    assert before.models["tiny-lm"].output_tokens_reserved is None, "nothing was learned yet"
    answered(selling, 250, 60)
    assert learn_reservations() == 1
    learned = policy_of(selling)
    assert learned.version > before.version
    assert learned.models["tiny-lm"].output_tokens_reserved == 64
    assert learned.models["identity"].output_tokens_reserved is None
    reserve_by("bound")
    assert policy_of(selling).models["tiny-lm"].output_tokens_reserved is None
    reserve_by("history")
    assert policy_of(selling).models["tiny-lm"].output_tokens_reserved == 64


@pytest.mark.django_db
def test_it_is_learned_and_shown_but_not_in_force_where_the_operator_did_not(selling):
    before = policy_of(selling)
    answered(selling, 250, 60)
    assert learn_reservations() == 0
    assert policy_of(selling) == before
    model = Model.objects.get(name="tiny-lm")
    assert (model.output_tokens_learned, model.answers_learned_from) == (64, 250)
    assert model.learned_at is not None


@pytest.mark.django_db
def test_only_what_names_no_bound_is_history(selling):
    reserve_by("history")
    answered(selling, 250, 1000, stop=0)  # named a bound, or several answers
    answered(selling, 250, 0, status="error")
    answered(selling, 199, 60)
    assert learn_reservations() == 0
    assert policy_of(selling).models["tiny-lm"].output_tokens_reserved is None
    answered(selling, 1, 60)
    assert learn_reservations() == 1


@pytest.mark.django_db
def test_a_bound_that_hardly_moves_compiles_nothing(selling):
    reserve_by("history")
    answered(selling, 250, 300, stop=1024)
    learn_reservations()
    version = policy_of(selling).version
    answered(selling, 250, 320, stop=1024)
    assert learn_reservations() == 0, "304 to 320 is 5 %"
    assert policy_of(selling).version == version
    assert learn_reservations() == 0
    answered(selling, 250, 350, stop=1024)
    assert learn_reservations() == 1
    assert policy_of(selling).models["tiny-lm"].output_tokens_reserved == 352


@pytest.mark.django_db
def test_no_bound_is_above_what_the_model_writes_at_most(selling):
    reserve_by("history")
    answered(selling, 250, 1020, stop=4096)
    learn_reservations()
    Model.objects.filter(name="tiny-lm").update(output_tokens_max=500, output_tokens_default=100)
    recompile_everyone()
    assert policy_of(selling).models["tiny-lm"].output_tokens_reserved == 500


@pytest.mark.django_db
def test_what_is_older_than_a_week_is_forgotten(selling):
    reserve_by("history")
    long_ago_ms = clock.to_ms(clock.now() - timedelta(days=7, minutes=1))
    answered(selling, 250, 60, at_ms=long_ago_ms)
    assert learn_reservations() == 0
    assert OverHold.objects.count() == 0


@pytest.mark.django_db
def test_the_over_hold_is_exact_and_replaced_by_the_next(selling):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    held = []
    frames = []
    for _ in range(137):
        cost_nano = draw.randrange(1, 50_000)
        reserved_nano = cost_nano + draw.randrange(100_000)
        held.append((reserved_nano, cost_nano))
        frames.append(settle(selling, cost_nano=cost_nano, reserved_nano=reserved_nano))
    frames.append(settle(selling, status="error", cost_nano=0, reserved_nano=10**9))
    frames.append(settle(selling, model="gone", cost_nano=0, reserved_nano=10**9))
    frames.append(settle(selling, model="identity", cost_nano=0, reserved_nano=0))
    ingest_segment(message(frames))
    task()
    row = OverHold.objects.get(model__name="tiny-lm")
    over = sorted(reserved - cost for reserved, cost in held)
    assert (row.requests, row.currency) == (137, "USD")
    assert abs(row.mean_nano * 137 - sum(over)) * 2 <= 137
    assert row.p50_nano == over[-(-137 * 50 // 100) - 1]
    assert row.p95_nano == over[-(-137 * 95 // 100) - 1]
    ratio = sum(reserved for reserved, _ in held) / sum(cost for _, cost in held)
    assert abs(float(row.held_per_cost) - ratio) <= 0.005 + 1e-9
    free = OverHold.objects.get(model__name="identity")
    assert (free.held_per_cost, free.mean_nano) == (None, 0)
    ingest_segment(message([settle(selling, cost_nano=5, reserved_nano=5)]))
    task()
    assert OverHold.objects.get(model__name="tiny-lm").requests == 138
    assert OverHold.objects.count() == 2
