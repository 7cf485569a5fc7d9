"""Entries of a version: what may be published, what is derived, and that it never changes."""

from datetime import UTC, datetime

import pytest
from django.db import IntegrityError, transaction

from billing.pricing import cost_port
from billing.pricing.book import ModelPrices
from billing.pricing.copy import draft_copy
from billing.pricing.entry import ambiguous
from billing.pricing.entry_json import entry_to_json
from billing.pricing.entry_read import read_entries
from billing.pricing.models import PriceBookVersion, PriceEntry
from billing.pricing.publish import check_draft, create_draft, publish
from billing.pricing.queries import prices_of
from meterplane.catalog.meters_change import create_meter
from meterplane.catalog.meters_check import read_definition
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.kernel.money import pico_to_text
from tests.billing.rating.agreements import entry as value
from tests.catalog.test_meters import GPU

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
FREE = {"meter": "requests", "price_model": {"type": "unit", "unit_amount": "0"}}
TOKENS = [
    {"meter": meter, "match": {"model": "tiny-lm"}, "price_model": model}
    for meter, model in (
        (
            "input_tokens",
            {
                "type": "graduated",
                "tiers": [
                    {"up_to": "1000000", "unit_amount": "0.000001", "flat_amount": "5"},
                    {"up_to": None, "unit_amount": "0.000002"},
                ],
            },
        ),
        ("output_tokens", {"type": "package", "package_size": "1000", "package_amount": "0.0011"}),
    )
]
pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def noon():
    """The clock stands still, so that instants can be compared."""
    with clock.frozen(NOW):
        yield


def draft(*entries, currency="USD", book="standard"):
    return create_draft(book=book, currency=currency, entries=read_entries([*entries], NOW))


def refused(*entries, **more):
    with pytest.raises(CallerError) as wrong:
        publish(draft(*entries).id, **more)
    return wrong.value


def test_a_request_is_held_at_the_highest_price_one_more_unit_can_have():
    version = publish(draft(*TOKENS, FREE).id)
    book = prices_of(version.version_id)
    assert book is not None
    prices = book.prices["tiny-lm"]
    assert [pico_to_text(prices.of(meter)) for meter in ("input_tokens", "output_tokens")] == [
        "0.000002", "0.0000011",
    ]  # fmt: skip
    # An entry that names no tier prices batches too.
    assert prices.of("input_tokens", "batch") == 2_000_000
    assert [each.meter for each in book.entries] == ["input_tokens", "output_tokens", "requests"]


def test_unit_prices_become_entries_that_say_the_same_as_they_are_published():
    prices = {"tiny-lm": ModelPrices(1, 2, 3, 1, 1, 1), "minilm": ModelPrices(5, 0, 0)}
    version = publish(create_draft(book="standard", currency="USD", prices=prices).id)
    book = prices_of(version.version_id)
    assert book is not None
    assert dict(book.prices) == prices
    assert len(book.entries) == 9
    assert {each.match for each in book.entries if each.specificity != 2} == set()
    copied = draft_copy(version.version_id)
    assert (copied.prices.count(), copied.entries.count()) == (6, 0)


def test_a_copy_of_entries_is_a_draft_of_entries():
    version = publish(draft(*TOKENS, FREE).id)
    copied = draft_copy(version.version_id)
    assert copied.entries.count() == 3
    publish(copied.id)


@pytest.mark.parametrize("status", ["published", "superseded"])
def test_postgresql_refuses_to_touch_the_entries_of_a_version_that_was_published(status):
    old = draft(*TOKENS, FREE)
    publish(old.id)
    if status == "superseded":
        publish(draft(*TOKENS, FREE).id)
    rows = PriceEntry.objects.filter(version=old)
    more = {
        "position": 99,
        "meter": "requests",
        "match": {"model": "x"},
        "price_model": {"type": "x"},
    }
    attempts = [
        lambda: rows.update(price_model={"type": "flat", "amount": "0"}),
        lambda: rows.update(match={"model": "other"}),
        lambda: rows.update(display_name="cheaper"),
        lambda: rows.delete(),
        lambda: PriceEntry.objects.create(version=old, **more),
    ]
    for attempt in attempts:
        with pytest.raises(IntegrityError, match="cannot change"), transaction.atomic():
            attempt()


def test_a_draft_can_still_be_edited_and_thrown_away():
    version = draft(*TOKENS, FREE)
    PriceEntry.objects.filter(version=version).update(display_name="x")
    version.delete()
    assert not PriceEntry.objects.exists()


def test_two_entries_that_could_both_win_are_refused_by_their_names():
    batch = {"meter": "requests", "match": {"service_tier": "batch"}, "display_name": "All batches",
             "price_model": {"type": "unit", "unit_amount": "1"}}  # fmt: skip
    model = batch | {"match": {"model": "tiny-lm"}, "display_name": "Tiny"}
    wrong = refused(*TOKENS, FREE, batch, model)
    assert wrong.code == "entries_ambiguous"
    assert "'All batches'" in wrong.message
    assert "'Tiny'" in wrong.message
    assert "model=tiny-lm, service_tier=batch" in wrong.message
    both = batch | {"match": {"model": "tiny-lm", "service_tier": "batch"}}
    publish(draft(*TOKENS, FREE, batch, model, both).id)


@pytest.mark.parametrize(
    ("matches", "found"),
    [
        ("model=a | model=b", 0),
        ("model=a | service_tier=batch", 1),
        ("model=a | service_tier=batch | model=a service_tier=batch", 0),
        ("model=a | service_tier=batch | model=b service_tier=batch", 1),
        (" | model=a", 0),
        ("region=eu | gpu_type=h100", 1),
        ("region=eu | gpu_type=h100 | region=eu gpu_type=h100", 0),
        ("region=eu | gpu_type=h100 | region=us gpu_type=h100", 1),
        ("region=eu | region=us | priority=high region=eu", 0),
        ("model=a priority=high | model=a service_tier=batch | region=eu", 1),
        ("model=a priority=high | model=a region=eu | model=a priority=high region=eu", 0),
        ("model=a service_tier=batch | model=b service_tier=batch", 0),
    ],
)
def test_entries_are_ambiguous_where_neither_is_more_specific(matches, found):
    entries = [value(n, "requests", match, "1") for n, match in enumerate(matches.split("|"))]
    assert len(ambiguous(entries)) == found


def test_what_was_sold_is_sold_on_unless_the_gap_is_confirmed():
    prices = {"tiny-lm": ModelPrices(1, 2, 3, 1, 1, 1), "minilm": ModelPrices(5, 0, 0)}
    publish(create_draft(book="standard", currency="USD", prices=prices).id)
    standard = [
        each | {"match": {"model": "tiny-lm", "service_tier": "standard"}} for each in TOKENS
    ]
    free = FREE | {"match": {"model": "tiny-lm", "service_tier": "standard"}}
    version = draft(*standard, free)
    assert [each.message for each in check_draft(version.id)] == [
        "minilm was priced and has no price here.",
        "tiny-lm had batch prices and has none here.",
    ]
    with pytest.raises(CallerError, match="Confirm 'gap'"):
        publish(version.id)
    with pytest.raises(CallerError, match="confirms nothing"):
        publish(version.id, confirm=["everything"])
    publish(version.id, confirm=["gap"])


def test_a_model_with_some_meters_only_is_never_published():
    wrong = refused(*TOKENS, confirm=["gap"])
    assert wrong.code == "prices_incomplete"
    assert "none for requests" in wrong.message


def tokens(match: str, amount: str, meter: str = "input_tokens"):
    pairs = dict(pair.split("=") for pair in match.split())
    return {"meter": meter, "match": pairs, "display_name": f"{meter} {match}",
            "price_model": {"type": "unit", "unit_amount": amount}}  # fmt: skip


OUT = tokens("", "0", "output_tokens")
LM = "model=tiny-lm"


@pytest.mark.parametrize(
    ("entries", "missing"),
    [
        ([f"{LM} region=eu"], "input_tokens of any other region"),
        ([f"{LM} region=eu", f"{LM} region=us"], "input_tokens of any other region"),
        ([f"{LM} region=eu gpu_type=H100"], "input_tokens of any other region or gpu_type"),
        ([f"{LM} priority=high", f"{LM} priority=low"], "input_tokens of any other priority"),
        ([f"{LM} priority=high region=eu", f"{LM} region=us"],
         "input_tokens of any other priority or region"),
        ([f"{LM} priority={each}" for each in ("high", "normal", "low")], ""),
        ([f"{LM} region=eu", LM], ""),
        ([f"{LM} region=eu", ""], ""),
        ([f"{LM} service_tier=batch region=eu", f"{LM} service_tier=standard"],
         "batch prices, but none for input_tokens of any other region"),
    ],
)  # fmt: skip
def test_no_request_may_be_served_where_it_has_no_price(entries, missing):
    draft_of = [tokens(each, "0.000001") for each in entries]
    if missing:
        wrong = refused(*draft_of, OUT, FREE, confirm=["gap"])
        assert wrong.code == "prices_incomplete"
        assert f"{missing}:" in wrong.message
    else:
        publish(draft(*draft_of, OUT, FREE).id)


@pytest.mark.parametrize(
    ("entries", "held"),
    [
        # The dearest region may serve it.
        ([(LM, "0.1"), (f"{LM} region=eu", "0.3"), (f"{LM} region=us", "0.2")], "0.3"),
        # A cheaper one is not counted on.
        ([(LM, "0.1"), (f"{LM} region=eu", "0.05")], "0.1"),
        # What names less than model and tier never wins, however dear it is.
        ([(f"{LM} service_tier=standard", "0.1"), (f"{LM} service_tier=batch", "0.1"),
          ("region=eu", "9")], "0.1"),
        # Nor does what a more specific entry takes in every class.
        ([(LM, "0.1"), (f"{LM} region=eu", "9"),
          *((f"{LM} region=eu priority={each}", "0.2") for each in ("high", "normal", "low"))],
         "0.2"),
        ([(LM, "0.1"), (f"{LM} region=eu", "9"),
          *((f"{LM} region=eu priority={each}", "0.2") for each in ("high", "low"))], "9"),
        # Nobody is of a class that is not there, so the general price of the model is never met.
        ([(LM, "9"), *((f"{LM} priority={each}", "0.2") for each in ("high", "normal", "low"))],
         "0.2"),
        ([(LM, "0.1"), (f"{LM} region=eu service_tier=batch", "9")], "0.1"),
        ([(LM, "0.1"), ("model=other region=eu", "9"), ("model=other", "1")], "0.1"),
    ],
)  # fmt: skip
def test_a_request_is_held_at_the_dearest_price_it_may_come_to(entries, held):
    version = publish(draft(*(tokens(*each) for each in entries), OUT, FREE).id)
    book = prices_of(version.version_id)
    assert book is not None
    assert pico_to_text(book.prices["tiny-lm"].input_token_pico) == held


def test_a_price_below_measured_cost_is_confirmed_where_a_cost_is_measured():
    cost_port.register(lambda model, meter, tier, currency: 1 if meter == "requests" else None)
    try:
        wrong = refused(*TOKENS, FREE)
        assert wrong.code == "price_below_cost"
        publish(draft(*TOKENS, FREE).id, confirm=["below_cost"])
    finally:
        cost_port.register(None)


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"match": {"region": " eu"}}, "dimension_value_unknown", "entries[0].match.region"),
        ({"match": {"gpu_type": "h" * 65}}, "dimension_value_unknown",
         "entries[0].match.gpu_type"),
        ({"match": {"priority": "urgent"}}, "dimension_value_unknown",
         "entries[0].match.priority"),
        ({"match": {"region": ""}}, "field_invalid", "entries[0].match.region"),
        ({"meter": "input_tokens", "match": {"token_kind": "output"}}, "dimension_value_unknown",
         "entries[0].match.token_kind"),
        ({"meter": "tokens", "match": {"token_kind": "cached"}}, "dimension_value_unknown",
         "entries[0].match.token_kind"),
        ({"match": {"token_kind": "input"}}, "dimension_unknown",
         "entries[0].match.token_kind"),
        ({"meter": "tokens", "match": {}}, "meter_unknown", "entries[0].meter"),
        ({"match": {"colour": "red"}}, "dimension_unknown", "entries[0].match.colour"),
        ({"match": {"service_tier": "gold"}}, "dimension_value_unknown",
         "entries[0].match.service_tier"),
        ({"match": {"model": 7}}, "field_invalid", "entries[0].match.model"),
        ({"match": {"model": ""}}, "field_invalid", "entries[0].match.model"),
        ({"match": []}, "field_invalid", "entries[0].match"),
        ({"meter": "unheard_of"}, "meter_unknown", "entries[0].meter"),
        ({"meter": None}, "field_invalid", "entries[0].meter"),
        ({"colour": "red"}, "field_invalid", "entries[0].colour"),
        ({"price_model": {"type": "unit", "unit_amount": "-1"}}, "price_model_invalid",
         "entries[0].price_model.unit_amount"),
        ({"price_model": {"type": "unit", "unit_amount": "10000000"}}, "price_too_high",
         "entries[0].price_model"),
        ({"price_model": {"type": "unit", "unit_amount": 0.1}}, "price_model_invalid",
         "entries[0].price_model.unit_amount"),
        ({"display_name": "x" * 121}, "field_invalid", "entries[0].display_name"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_entry_is_said_with_its_place(change, code, field):
    with pytest.raises(CallerError) as wrong:
        read_entries([FREE | change], NOW)
    assert (wrong.value.code, wrong.value.field) == (code, field)


@pytest.mark.parametrize("kind", ["input", "output"])
@pytest.mark.parametrize("meter", ["tokens", None])
def test_tokens_of_a_kind_are_the_meter_of_that_kind(meter, kind):
    asked = {"meter": meter or f"{kind}_tokens", "match": {"token_kind": kind, "model": "m"}}
    (read,) = read_entries([FREE | asked], NOW)
    assert (read.meter, read.match) == (f"{kind}_tokens", (("model", "m"),))


def test_a_declared_meter_that_is_called_tokens_keeps_its_own_dimension():
    declared = GPU | {"rounding": {}, "conversion": None}
    create_meter("tokens", read_definition(declared), by="t")
    with pytest.raises(CallerError) as wrong:
        read_entries([FREE | {"meter": "tokens", "match": {"token_kind": "input"}}], NOW)
    assert wrong.value.code == "dimension_unknown"


def test_two_entries_of_one_match_are_refused():
    with pytest.raises(CallerError, match=r"entries\[0\] and entries\[1\]"):
        read_entries([FREE, FREE | {"display_name": "again"}], NOW)


def test_an_entry_reads_back_as_it_was_written():
    (read,) = read_entries([TOKENS[0] | {"display_name": "What you send"}], NOW)
    (again,) = read_entries([entry_to_json(read)], NOW)
    assert entry_to_json(again) | {"id": ""} == entry_to_json(read) | {"id": ""}


def test_a_declared_meter_is_matched_by_what_it_declares_and_priced_as_a_whole():
    create_meter("gpu_hours", read_definition(GPU | {"rounding": {}, "conversion": None}), by="t")
    create_meter("rounded", read_definition(GPU), by="t")
    unit = {"type": "unit", "unit_amount": "2"}
    h200 = {"meter": "gpu_hours", "match": {"gpu": "h200"}, "price_model": unit}
    assert refused(*TOKENS, FREE, h200).code == "prices_incomplete"
    publish(draft(*TOKENS, FREE, h200, {"meter": "gpu_hours", "price_model": unit}).id)
    with pytest.raises(CallerError) as wrong:
        read_entries([h200 | {"meter": "rounded"}], NOW)
    assert wrong.value.code == "meter_not_divisible"
    with pytest.raises(CallerError) as wrong:
        read_entries([h200 | {"match": {"region": "eu"}}], NOW)
    assert "it carries gpu, project" in wrong.value.message
    # Without it what was sent would have no price.
    assert refused(*TOKENS, FREE).code == "price_gap"


@pytest.mark.parametrize("currency", ["XXX", "usd"])
def test_the_currency_must_be_known(currency):
    with pytest.raises(CallerError) as wrong:
        draft(*TOKENS, FREE, currency=currency)
    assert wrong.value.code == "currency_unknown"
    assert not PriceBookVersion.objects.exists()
