"""What holds for every price, part, draw and split, whatever the numbers."""

import itertools
import json
from collections import defaultdict
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from random import Random

import pytest
from hypothesis import strategies as st

from billing.calculator.answer import answer
from billing.calculator.stream import answered, line_answer
from billing.credits.draw import Grant, Part, draw, restore
from billing.pricing.price_model import (
    Dynamic,
    Flat,
    Graduated,
    Package,
    Tier,
    Unit,
    UnitConversion,
    Volume,
    price_model_to_json,
    read_price_model,
)
from billing.rating.allocate import allocate
from billing.rating.commitment import commitment
from billing.rating.price import price
from billing.rating.prorate import Span, change, prorate
from meterplane.kernel.decimals import EXACT
from meterplane.kernel.money import minor_digits
from tests.billing.calculator.questions import question
from tests.billing.properties import LONG_EXAMPLES, long_tier, try_examples

OPENS = datetime(2024, 2, 1, tzinfo=UTC)
CLOSES = datetime(2024, 3, 1, tzinfo=UTC)
MONTH = Span(OPENS, CLOSES)

currencies = st.sampled_from(["USD", "JPY", "KWD"])
bys = st.sampled_from(["day", "second"])
amounts = st.one_of(
    st.decimals(0, 10**4, places=2),
    st.decimals(0, 10, places=12),
    st.integers(0, 10**20).map(Decimal),
)
above_zero = st.one_of(st.integers(1, 10**6).map(Decimal), st.decimals("0.01", 1000, places=3))
instants = st.integers(0, 29 * 86_400).map(lambda second: OPENS + timedelta(seconds=second))


@st.composite
def tiers(draw):
    ends = sorted(draw(st.sets(above_zero, max_size=4)))
    return tuple(Tier(end, draw(amounts), draw(amounts)) for end in [*ends, None])


@st.composite
def models(draw, kinds=(Unit, Flat, Graduated, Volume, Package, Dynamic), bounds=True):
    kind = draw(st.sampled_from(kinds))
    low, high = sorted(draw(st.tuples(amounts, amounts)))
    more = {}
    if bounds:
        more = {
            "minimum_amount": draw(st.sampled_from([None, low])),
            "maximum_amount": draw(st.sampled_from([None, high])),
            "unit_conversion": draw(
                st.none()
                | st.builds(
                    UnitConversion,
                    above_zero,
                    st.sampled_from(["ceil", "floor", "half_up"]),
                    st.integers(0, 4),
                )
            ),
        }
    if kind in (Graduated, Volume):
        return kind(draw(tiers()), **more)
    if kind is Unit:
        return Unit(draw(amounts), draw(amounts), **more)
    if kind is Package:
        return Package(draw(above_zero), draw(amounts), draw(amounts), **more)
    return kind(draw(amounts), **more)


@st.composite
def grants(draw):
    """Of few values, so that ties are common."""
    days = st.integers(0, 3).map(lambda day: OPENS + timedelta(days=day))
    return [
        Grant(
            f"g{number}",
            draw(st.integers(0, 100)),
            draw(st.integers(0, 2)),
            draw(st.none() | days),
            draw(st.sampled_from(["purchased", "promotional"])),
            draw(st.none() | days),
        )
        for number in draw(st.permutations(range(draw(st.integers(0, 6)))))
    ]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["1", "-1", "1e5", "NaN", "2026-03-01", "USD", "day", "price", "credits"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)


@st.composite
def damaged_questions(draw):
    """A good question with something else in one place."""
    asked = deepcopy(question(Random(draw(st.integers(0, 10**6)))))
    place = asked
    while True:
        keys = list(range(len(place))) if isinstance(place, list) else sorted(place)
        if not keys:
            return asked
        key = draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or draw(st.booleans()):
            place[key] = draw(json_values)
            return asked
        place = place[key]


def minor_of(exact, currency):
    return EXACT.scaleb(exact, minor_digits(currency))


# --- prices


def lines_add_up_to_exact_and_the_amount_is_off_by_at_most_half_a_minor_unit(
    model, quantity, currency, final
):
    found = price(model, quantity, currency, final=final)
    with localcontext(EXACT):
        assert sum(line.amount for line in found.lines) == found.exact
        assert abs(found.amount_minor - minor_of(found.exact, currency)) <= Decimal("0.5")
        assert sum(line.quantity for line in found.lines) == found.quantity
        for line in found.lines:
            if line.unit_amount is not None:
                assert line.quantity * line.unit_amount + line.flat_amount == line.amount


def a_price_stays_within_its_bounds(model, quantity, currency):
    so_far, final = (price(model, quantity, currency, final=final) for final in (False, True))
    most, least = model.maximum_amount, model.minimum_amount
    assert most is None or so_far.exact <= final.exact <= most
    assert least is None or final.exact >= least
    assert final.amount_minor == so_far.amount_minor + final.true_up_minor
    assert final.true_up_minor >= 0


def more_never_costs_less(model, quantities, currency):
    less, more = sorted(quantities)
    assert price(model, less, currency).exact <= price(model, more, currency).exact


def a_tier_may_be_cut_in_two(model, cut, quantity):
    cut_at = next(
        number for number, tier in enumerate(model.tiers) if tier.up_to is None or cut < tier.up_to
    )
    if cut_at and model.tiers[cut_at - 1].up_to >= cut:
        return
    tier = model.tiers[cut_at]
    halves = (Tier(cut, tier.unit_amount, tier.flat_amount), Tier(tier.up_to, tier.unit_amount))
    in_two = Graduated((*model.tiers[:cut_at], *halves, *model.tiers[cut_at + 1 :]))
    assert price(in_two, quantity, "USD").exact == price(model, quantity, "USD").exact


def graduated_is_the_flat_amounts_reached_and_each_unit_at_its_own_tier(model, quantity):
    """Unit by unit: another way to the same sum."""
    below = [tier.up_to for tier in model.tiers[:-1]]
    reached = sum(1 for end in below if quantity > end)
    expected = sum(tier.flat_amount for tier in model.tiers[: reached + 1])
    for unit in range(quantity):
        tier = sum(1 for end in below if unit >= end)
        expected += model.tiers[tier].unit_amount
    assert price(model, quantity, "USD").exact == expected


def interim_bills_sum_to_the_final_one(model, quantities, currency):
    asked = {"op": "price", "model": price_model_to_json(model), "currency": currency}
    billed = Decimal(0)
    with localcontext(EXACT):
        for number, quantity in enumerate(quantities, 1):
            final = number == len(quantities)
            more = {"quantity": str(quantity), "already_billed": str(billed), "final": final}
            told = answer(asked | more)
            billed += Decimal(told["net"])
    assert billed == Decimal(told["amount"])


def a_conversion_is_off_by_less_than_one_step(model, quantity):
    conversion = model.unit_conversion
    if conversion is None:
        return
    found = price(model, quantity, "USD").quantity
    with localcontext(EXACT):
        off = found * conversion.divide_by - quantity
        step = Decimal(1).scaleb(-conversion.decimals) * conversion.divide_by
        assert abs(off) < step
        assert conversion.rounding != "ceil" or off >= 0
        assert conversion.rounding != "floor" or off <= 0
        assert conversion.rounding != "half_up" or abs(off) * 2 <= step


def a_model_is_the_same_after_its_json(model):
    written = price_model_to_json(model)
    assert read_price_model(json.loads(json.dumps(written))) == model
    assert price_model_to_json(read_price_model(written)) == written


# --- parts of a period


def parts_of_a_period_are_the_whole(amount, cuts, by, currency):
    points = [OPENS, *sorted(cuts), CLOSES]
    spans = [Span(*pair) for pair in itertools.pairwise(points)]
    assert sum(span.count(by) for span in spans) == MONTH.count(by)
    parts = [prorate(amount, span, MONTH, by, currency) for span in spans]
    whole = price(Flat(amount), 0, currency).amount_minor
    assert abs(sum(parts) - whole) * 2 <= len(parts) + 1  # each is rounded once
    assert prorate(amount, MONTH, MONTH, by, currency) == whole
    assert [prorate(-amount, span, MONTH, by, currency) for span in spans] == [-p for p in parts]


def a_change_back_gives_back_what_the_change_cost(old, new, at, by, currency):
    there = change(old, new, at, MONTH, by, currency)
    back = change(new, old, at, MONTH, by, currency)
    assert there.net_minor == -back.net_minor
    assert there.credit_minor <= 0 <= there.charge_minor
    assert change(old, old, at, MONTH, by, currency).net_minor == 0


def a_commitment_is_met_exactly(committed, spent, at, by, currency):
    found = commitment(committed, spent, MONTH, by, currency, at)
    assert max(spent, found.commitment_minor) == spent + found.true_up_minor


# --- splits


def a_split_is_fair_whatever_the_order(total, weights, currency):
    weights |= {"z": Decimal(1)}
    parts = allocate(total, weights)
    assert sum(parts.values()) == total
    whole = sum(weights.values())
    assert all(abs(parts[key] * whole - total * weights[key]) < whole for key in weights)
    assert allocate(total, dict(reversed(weights.items()))) == parts
    assert allocate(-total, weights) == {key: -part for key, part in parts.items()}


# --- credits


def a_draw_makes_nothing_and_loses_nothing(granted, amount, at, random):
    drawn = draw(granted, amount, at)
    assert sum(part.amount for part in drawn.applied) + drawn.due == amount
    found = defaultdict(int)
    for part in (*drawn.applied, *drawn.remaining, *drawn.expired):
        found[part.id] += part.amount
        assert part.amount > 0
    assert found == {grant.id: grant.amount for grant in granted if grant.amount}
    assert not drawn.due or not drawn.remaining, "what is left would have paid"
    shuffled = list(granted)
    random.shuffle(shuffled)
    assert draw(shuffled, amount, at) == drawn


def two_draws_are_one(granted, first, second, at):
    one = draw(granted, first + second, at)
    left = {part.id: part.amount for part in draw(granted, first, at).remaining}
    rest = [
        Grant(g.id, left.get(g.id, 0), g.priority, g.expires_at, g.kind, g.created_at)
        for g in granted
    ]
    two = draw(rest, second + draw(granted, first, at).due, at)
    assert (two.remaining, two.due) == (one.remaining, one.due)


def what_is_restored_undoes_the_last_of_a_draw(granted, amount, given_back, at):
    drawn = draw(granted, amount, at)
    paid = amount - drawn.due
    given_back = min(given_back, paid)
    restored = restore(drawn.applied, given_back)
    assert sum(part.amount for part in restored) == given_back
    assert restore(drawn.applied, paid) == drawn.applied[::-1]
    back = {part.id: part.amount for part in restored}
    kept = tuple(
        Part(part.id, part.amount - back.get(part.id, 0))
        for part in drawn.applied
        if part.amount > back.get(part.id, 0)
    )
    assert kept == draw(granted, paid - given_back, at).applied, "as if it had never been drawn"


# --- lines


def rounding_is_symmetric_and_done_once(amount, currency):
    def rounded(text):
        return answer({"op": "round", "amount": text, "currency": currency})["amount"]

    once = rounded(str(amount))
    assert rounded(once) == once
    assert Decimal(rounded(f"-{amount}")) == -Decimal(once)


def a_damaged_question_has_an_answer(asked):
    line = json.dumps(asked).encode()
    told = line_answer(line)
    assert told.count(b"\n") == 1
    assert isinstance(json.loads(told), dict)
    assert line_answer(line) == told


def any_bytes_have_an_answer_a_line(sent):
    told = b"".join(answered([sent]))
    assert told.count(b"\n") == sent.count(b"\n") + (not sent.endswith(b"\n") and bool(sent))
    assert all(isinstance(json.loads(line), dict) for line in told.splitlines())


def it_does_not_matter_where_a_stream_is_cut(seeds, cuts):
    lines = [json.dumps(question(Random(seed))).encode() for seed in seeds]
    sent = b"\n".join(lines)
    points = sorted({min(cut, len(sent)) for cut in cuts} | {0, len(sent)})
    chunks = [sent[start:end] for start, end in itertools.pairwise(points)]
    assert b"".join(answered(chunks)) == b"".join(map(line_answer, lines))


GROWING = (Unit, Flat, Graduated, Package, Dynamic)
few = st.integers(0, 300)
PROPERTIES = [
    (
        lines_add_up_to_exact_and_the_amount_is_off_by_at_most_half_a_minor_unit,
        (models(), amounts, currencies, st.booleans()),
    ),
    (a_price_stays_within_its_bounds, (models(), amounts, currencies)),
    (more_never_costs_less, (models(GROWING), st.tuples(amounts, amounts), currencies)),
    (a_tier_may_be_cut_in_two, (models((Graduated,), bounds=False), above_zero, amounts)),
    (
        graduated_is_the_flat_amounts_reached_and_each_unit_at_its_own_tier,
        (
            st.builds(
                lambda ends, rest: Graduated(
                    tuple(
                        Tier(end, *rest[number])
                        for number, end in enumerate([*map(Decimal, sorted(ends)), None])
                    )
                ),
                st.sets(st.integers(1, 40), max_size=4),
                st.lists(
                    st.tuples(st.decimals(0, 99, places=2), st.decimals(0, 99, places=2)),
                    min_size=5, max_size=5,
                ),
            ),
            st.integers(0, 50),
        ),
    ),
    (
        interim_bills_sum_to_the_final_one,
        (models(), st.lists(st.decimals(0, 10**4, places=2), min_size=1, max_size=5), currencies),
    ),
    (a_conversion_is_off_by_less_than_one_step, (models(), amounts)),
    (a_model_is_the_same_after_its_json, (models(),)),
    (
        parts_of_a_period_are_the_whole,
        (amounts, st.lists(instants, max_size=5), bys, currencies),
    ),
    (a_change_back_gives_back_what_the_change_cost, (amounts, amounts, instants, bys, currencies)),
    (a_commitment_is_met_exactly, (amounts, st.integers(0, 10**8), instants, bys, currencies)),
    (
        a_split_is_fair_whatever_the_order,
        (
            st.integers(-(10**6), 10**6),
            st.dictionaries(st.sampled_from("abcdefg"), amounts.filter(lambda n: n < 10**5)),
            currencies,
        ),
    ),
    (
        a_draw_makes_nothing_and_loses_nothing,
        (grants(), few, instants, st.randoms(use_true_random=False)),
    ),
    (two_draws_are_one, (grants(), few, few, instants)),
    (what_is_restored_undoes_the_last_of_a_draw, (grants(), few, few, instants)),
    (rounding_is_symmetric_and_done_once, (amounts, currencies)),
    (a_damaged_question_has_an_answer, (damaged_questions(),)),
    (any_bytes_have_an_answer_a_line, (st.binary(max_size=80),)),
    (
        it_does_not_matter_where_a_stream_is_cut,
        (st.lists(st.integers(0, 10**6), max_size=4), st.lists(st.integers(0, 2000), max_size=6)),
    ),
]  # fmt: skip
each_property = pytest.mark.parametrize(
    ("holds", "strategies"), PROPERTIES, ids=[holds.__name__ for holds, _ in PROPERTIES]
)


@pytest.mark.parametrize("examples", [30, pytest.param(LONG_EXAMPLES, marks=long_tier)])
@each_property
def test_it_holds(holds, strategies, examples):
    try_examples(holds, strategies, examples)
