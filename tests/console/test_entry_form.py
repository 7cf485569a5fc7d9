"""An entry as fields called by the paths of its JSON: there, back, and refused in place."""

import json

import pytest

from billing.pricing.entry_json import entry_to_json
from billing.pricing.entry_read import read_entries
from meterplane.console.entry_form import add_tier, fields_of, paste, read_form, remove_tier
from meterplane.kernel.errors import CallerError
from tests.billing.world import utc

NOW = utc(11, 24)
UNIT = {
    "meter": "input_tokens", "match.model": "tiny-lm", "match.service_tier": "standard",
    "display_name": "What you send", "price_model.type": "unit",
    "price_model.unit_amount": "0.00000015",
}  # fmt: skip
TIERS = {
    "meter": "output_tokens", "price_model.type": "graduated",
    "price_model.tiers[0].up_to": "5", "price_model.tiers[0].unit_amount": "0",
    "price_model.tiers[0].flat_amount": "100", "price_model.tiers[1].unit_amount": "1",
}  # fmt: skip
BOUNDED = {
    "minimum_amount": "1", "maximum_amount": "9",
    "unit_conversion": {"divide_by": "1000", "rounding": "half_up", "decimals": 2},
}  # fmt: skip
MODELS = [
    {"type": "unit", "unit_amount": "0.00000015", "free_units": "7"},
    {"type": "flat", "amount": "10"},
    {"type": "graduated", "tiers": [{"up_to": "5", "unit_amount": "0", "flat_amount": "100"},
                                    {"up_to": None, "unit_amount": "1", "flat_amount": "0"}]},
    {"type": "volume", "tiers": [{"up_to": None, "unit_amount": "1", "flat_amount": "2"}]},
    {"type": "package", "package_size": "10", "package_amount": "100", "free_units": "0"},
    {"type": "dynamic", "multiplier": "1.33333"},
]  # fmt: skip


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model["type"])
@pytest.mark.parametrize("bounds", [{}, BOUNDED], ids=["plain", "bounded"])
def test_fields_say_what_their_entry_says(model, bounds):
    sent = {"meter": "requests", "match": {"model": "minilm"}, "price_model": model | bounds}
    (entry,) = read_entries([sent], NOW)
    read = read_form(fields_of(entry_to_json(entry)), NOW)
    assert read.errors == {}
    assert read.entry is not None
    assert entry_to_json(read.entry) | {"id": ""} == entry_to_json(entry) | {"id": ""}


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        ({"price_model.unit_amount": ""}, "price_model.unit_amount", "This is missing."),
        ({"price_model.unit_amount": "-1"}, "price_model.unit_amount", "This must"),
        ({"price_model.unit_amount": "NaN"}, "price_model.unit_amount", "This must"),
        ({"price_model.type": "barter"}, "price_model.type", "This is not known here;"),
        ({"match.service_tier": "gold"}, "match.service_tier", "'gold' is no service tier"),
        ({"match.colour": "red"}, "match.colour", "Usage of input_tokens cannot be matched"),
        ({"display_name": "x" * 121}, "display_name", "This is longer than 120 letters."),
        ({"price_model.minimum_amount": "9", "price_model.maximum_amount": "1"},
         "price_model.minimum_amount", "This (9) is above the maximum (1)."),
        ({"price_model.unit_conversion.divide_by": "0"},
         "price_model.unit_conversion.divide_by", "This must"),
        ({"price_model.unit_conversion.divide_by": "9"},
         "price_model.unit_conversion.rounding", "This is missing."),
        ({"price_model.unit_conversion.divide_by": "9", "price_model.unit_conversion.rounding":
          "ceil", "price_model.unit_conversion.decimals": "1.5"},
         "price_model.unit_conversion.decimals", "This must"),
        (TIERS | {"price_model.tiers[1].up_to": "4", "price_model.tiers[2].unit_amount": "1"},
         "price_model.tiers[1].up_to", "This must be above 5, where this tier begins."),
        (TIERS | {"price_model.tiers[1].unit_amount": ""},
         "price_model.tiers[1].unit_amount", "This is missing, and so is flat_amount."),
    ],
)  # fmt: skip
def test_a_refusal_names_its_field(change, field, said):
    read = read_form(UNIT | change, NOW)
    assert read.entry is None
    assert [*read.errors] == [field]
    assert read.errors[field].startswith(said)


def test_rows_of_tiers_are_added_and_removed_and_only_the_last_has_no_end():
    three = TIERS | {"price_model.tiers[1].up_to": "10", "price_model.tiers[2].unit_amount": "2"}
    assert read_form(three, NOW).errors == {}
    more = add_tier(three)
    assert more["price_model.tiers[3].unit_amount"] == ""
    assert "price_model.tiers[2].up_to" in read_form(more, NOW).errors
    for number, kept in [(0, ["1", "2"]), (1, ["0", "2"]), (2, ["0", "1"]), (7, ["0", "1", "2"])]:
        left = remove_tier(three, number)
        assert [text for name, text in left.items() if name.endswith("].unit_amount")] == kept
        assert read_form(left, NOW).errors == {}
    alone = remove_tier(remove_tier(TIERS, 0), 0)
    assert read_form(alone, NOW).errors == {}


def test_pasted_json_fills_the_fields():
    model = MODELS[2]
    whole = paste(json.dumps({"meter": "requests", "price_model": model}), UNIT, NOW)
    assert whole["price_model.tiers[0].flat_amount"] == "100"
    assert "match.model" not in whole
    alone = paste(json.dumps(model), UNIT, NOW)
    assert alone["match.model"] == "tiny-lm"
    assert "price_model.unit_amount" not in alone
    assert read_form(alone, NOW).errors == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "This is not JSON"),
        ("{", "This is not JSON"),
        ("[]", "JSON object"),
        ('{"type": "unit", "unit_amount": 0.1}', "float"),
        ('{"type": "unit", "type": "flat", "amount": "1"}', "twice"),
        ('{"type": "unit", "unit_amount": "1", "colour": "red"}', "colour"),
        ('{"price_model": {"type": "flat", "amount": "1"}}', "meter is missing"),
        ("\ud800", "half of a character"),
        (json.dumps({"type": "volume", "tiers": [{"up_to": str(n), "unit_amount": "1"} for n in
         range(1, 201)] + [{"up_to": None, "unit_amount": "1"}]}), "room for 200 tiers"),
    ],
)  # fmt: skip
def test_a_fault_in_pasted_json_is_said_where_it_was_pasted(text, said):
    with pytest.raises(CallerError) as refused:
        paste(text, UNIT, NOW)
    assert refused.value.field == "json"
    assert said in refused.value.message
