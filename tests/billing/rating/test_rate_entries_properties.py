"""What must hold for every bill of entries and contracts, however its usage came together."""

from dataclasses import replace
from datetime import timedelta
from fractions import Fraction

from hypothesis import strategies as st

from billing.rating.rate import Period, rate
from meterplane.kernel.money import divide_half_away, minor_digits
from tests.billing.properties import holds_for
from tests.billing.rating.agreements import bill, book, contract, entry, period, used
from tests.billing.rating.cases import halves

OCTOBER = period("10-01 11-01")
amounts = st.integers(0, 999).map(lambda n: f"0.{n:03d}")


@st.composite
def price_models(draw):
    """Unit, graduated, volume or package, as JSON."""
    kind = draw(st.sampled_from(["unit", "graduated", "volume", "package"]))
    if kind == "unit":
        return {
            "type": kind,
            "unit_amount": draw(amounts),
            "free_units": str(draw(st.integers(0, 9))),
        }
    if kind == "package":
        return {"type": kind, "package_size": str(draw(st.integers(1, 50))),
                "package_amount": draw(amounts)}  # fmt: skip
    bounds = sorted(draw(st.sets(st.integers(1, 200), min_size=1, max_size=3)))
    return {
        "type": kind,
        "tiers": [
            {"up_to": each, "unit_amount": draw(amounts), "flat_amount": draw(amounts)}
            for each in [*map(str, bounds), None]
        ],
    }


@st.composite
def worlds(draw):
    """A currency, a version of three entries, and usage of two models in two tiers."""
    currency = draw(st.sampled_from(["USD", "JPY", "KWD"]))
    prices = book(
        1,
        entry(1, "requests", "", draw(price_models())),
        entry(2, "requests", "model=a", draw(price_models())),
        entry(3, "requests", "model=a service_tier=batch", draw(price_models())),
        currency=currency,
    )
    rows = draw(
        st.lists(
            st.tuples(st.sampled_from("abc"), st.integers(0, 150), st.sampled_from(["", "batch"])),
            max_size=8,
        )
    )
    return currency, prices, "\n".join(f"1 {model} {units} {tier}" for model, units, tier in rows)


terms = st.fixed_dictionaries(
    {},
    optional={
        "discount_percent": st.integers(0, 1000).map(lambda n: f"{n / 10:.1f}"),
        "minimum_minor": st.integers(0, 5000),
        "maximum_minor": st.integers(5000, 9000),
        "commitment_minor": st.integers(0, 5000),
    },
)


@holds_for(worlds(), terms, st.randoms(use_true_random=False), quick_examples=60)
def test_order_and_batching_cannot_matter_and_a_replay_has_the_same_hash(world, agreed, random):
    currency, prices, rows = world
    held = contract(currency=currency, **agreed)
    quantities = used(rows, OCTOBER, contract_id=held.id)
    once = bill(quantities, prices, OCTOBER, contracts=[held], currency=currency)
    shuffled = halves(quantities)
    random.shuffle(shuffled)
    again = bill(shuffled, prices, OCTOBER, contracts=[held], currency=currency)
    assert again == once
    assert once.total_minor == sum(line.amount_minor for line in once.lines)


@holds_for(worlds(), terms, st.integers(1, 30), st.data(), quick_examples=50)
def test_a_month_cut_anywhere_and_late_anyhow_owes_what_it_owes_in_one(world, agreed, day, data):
    """Invoices of parts of a month, and of what came later, add up to the one of all of it."""
    currency, prices, rows = world
    held = [contract(currency=currency, ends="11-01", **agreed)]
    everything = used(rows, OCTOBER, contract_id=held[0].id)
    whole = bill(everything, prices, OCTOBER, contracts=held, currency=currency)
    cut = OCTOBER.starts_at + timedelta(days=day)
    first = Period(OCTOBER.starts_at, cut)
    rest = Period(cut, OCTOBER.ends_at)
    november = period("11-01 12-01")
    invoices = []
    arrived = [replace(each, units=0) for each in everything]
    for now in (first, rest, november):
        closed = [
            replace(each, is_late=True) for each in (first, rest) if each.ends_at <= now.starts_at
        ]
        is_last = now is november
        arrived = [
            replace(
                one, units=each.units if is_last else data.draw(st.integers(one.units, each.units))
            )
            for one, each in zip(arrived, everything, strict=True)
        ]
        # Which part of the month usage belongs to is a matter of its entry's month alone.
        place = closed[0] if closed else now
        invoices.append(
            bill(
                [replace(each, period=place) for each in arrived], prices, *closed, now,
                invoices=invoices, contracts=held, currency=currency,
            )
        )  # fmt: skip
    plain_lines = sum(line.unit_price_pico is not None for each in invoices for line in each.lines)
    owed = sum(each.total_minor for each in invoices)
    # Each line of a plain price is rounded for itself, and a discount follows what it is of.
    assert abs(owed - whole.total_minor) <= plain_lines


@holds_for(worlds(), quick_examples=50)
def test_a_second_rater_made_of_fractions_agrees_to_the_minor_unit(world):
    currency, prices, rows = world
    (version,) = prices.values()
    sums: dict[tuple[str, ...], int] = {}
    for row in rows.splitlines():
        _, model, units, *tier = row.split()
        number = 3 if (model, tier) == ("a", ["batch"]) else 2 if model == "a" else 1
        plain = version.entries[number - 1].price_model
        apart = (model, *tier) if _is_plain(plain) else ()
        sums[str(number), *apart] = sums.get((str(number), *apart), 0) + int(units)
    digits = minor_digits(currency)
    by_hand = 0
    for (number, *_), units in sums.items():
        if units:
            exact = _amount(version.entries[int(number) - 1].price_model, units)
            scaled = exact * 10**digits
            by_hand += divide_half_away(scaled.numerator, scaled.denominator)
    assert rate(used(rows, OCTOBER), prices, currency).total_minor == by_hand


def _is_plain(model):
    return type(model).__name__ == "Unit" and not model.free_units


def _amount(model, units):
    """From the words of the price models, in whole units and fractions."""
    match type(model).__name__:
        case "Unit":
            return max(0, units - int(model.free_units)) * Fraction(model.unit_amount)
        case "Package":
            return -(-units // int(model.package_size)) * Fraction(model.package_amount)
    owed, below = Fraction(0), 0
    for number, tier in enumerate(model.tiers):
        top = units if tier.up_to is None else int(tier.up_to)
        if type(model).__name__ == "Volume":
            if units <= top:
                return units * Fraction(tier.unit_amount) + Fraction(tier.flat_amount)
            continue
        if units > below or number == 0:
            owed += Fraction(tier.flat_amount)
            owed += (min(units, top) - below) * Fraction(tier.unit_amount)
        below = top
    return owed
