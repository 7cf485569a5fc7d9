"""A price model's JSON: what goes without saying, and the one text it is written as."""

import json

import pytest

from billing.pricing.price_model import (
    TIERS_MAX,
    Tier,
    Unit,
    price_model_to_json,
    read_price_model,
)
from meterplane.kernel.errors import CallerError

# As it may be sent, and as it is written.
WRITTEN = """
{"type":"unit","unit_amount":"0.500"}
{"type":"unit","unit_amount":"0.5","free_units":"0"}

{"unit_amount":2,"minimum_amount":"1e1","type":"unit","maximum_amount":null}
{"type":"unit","unit_amount":"2","free_units":"0","minimum_amount":"10"}

{"type":"flat","amount":"-0.0"}
{"type":"flat","amount":"0"}

{"type":"graduated","tiers":[{"up_to":"05","flat_amount":"100"},{"unit_amount":"1.5E-7","up_to":null}]}
{"type":"graduated","tiers":[{"up_to":"5","unit_amount":"0","flat_amount":"100"},\
{"up_to":null,"unit_amount":"0.00000015","flat_amount":"0"}]}

{"type":"volume","tiers":[{"up_to":null,"unit_amount":"1"}],"maximum_amount":"9.90"}
{"type":"volume","tiers":[{"up_to":null,"unit_amount":"1","flat_amount":"0"}],"maximum_amount":"9.9"}

{"type":"package","package_size":"10","package_amount":"100"}
{"type":"package","package_size":"10","package_amount":"100","free_units":"0"}

{"type":"dynamic","multiplier":"1.33333","unit_conversion":{"rounding":"ceil","divide_by":"1000.0"}}
{"type":"dynamic","multiplier":"1.33333",\
"unit_conversion":{"divide_by":"1000","rounding":"ceil","decimals":0}}
"""


@pytest.mark.parametrize("pair", WRITTEN.strip().split("\n\n"))
def test_a_model_has_one_text(pair):
    sent, written = pair.split("\n")
    model = read_price_model(json.loads(sent))
    assert json.dumps(price_model_to_json(model), separators=(",", ":")) == written
    assert read_price_model(json.loads(written)) == model


def test_a_float_is_refused_however_the_json_was_decoded():
    with pytest.raises(CallerError) as refused:
        read_price_model({"type": "unit", "unit_amount": 0.5}, "entries[3].model")
    assert refused.value.code == "price_model_invalid"
    assert refused.value.field == "entries[3].model.unit_amount"


def test_a_model_has_as_many_tiers_as_anybody_needs_and_no_more():
    def tiers(count):
        return [{"up_to": each + 1, "unit_amount": "1"} for each in range(count - 1)] + [
            {"up_to": None, "unit_amount": "1"}
        ]

    assert len(read_price_model({"type": "volume", "tiers": tiers(TIERS_MAX)}).tiers) == TIERS_MAX
    with pytest.raises(CallerError, match=f"and holds {TIERS_MAX + 1}"):
        read_price_model({"type": "volume", "tiers": tiers(TIERS_MAX + 1)})


def test_models_are_values():
    one, other = (read_price_model({"type": "unit", "unit_amount": text}) for text in ("1", "1.0"))
    assert isinstance(one, Unit)
    assert (one, hash(one)) == (other, hash(other))
    with pytest.raises(AttributeError):
        Tier(None).up_to = 5
