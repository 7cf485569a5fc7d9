"""A bad line says which field, and why."""

import json
import re

import pytest

from billing.calculator.stream import line_answer
from tests.billing.calculator.refusals import LINES, MODELS, NEEDS


def rows(table):
    """From the right: `|` has a place in JSON as well."""
    return [[cell.strip() for cell in row.rsplit("|", 2)] for row in table.strip("\n").split("\n")]


def refused(line):
    told = json.loads(line_answer(line.encode()))
    assert list(told) == ["error"]
    assert list(told["error"]) == ["code", "message", "field"]
    return told["error"]


@pytest.mark.parametrize(("model", "field", "word"), rows(MODELS))
def test_a_price_model_is_refused_at_the_field_that_is_wrong(model, field, word):
    model = model.replace("@", '{"up_to":null,"unit_amount":"1"}')
    error = refused(f'{{"op":"price","model":{model},"quantity":"1","currency":"USD"}}')
    assert (error["code"], error["field"]) == ("price_model_invalid", field)
    assert word in error["message"]


@pytest.mark.parametrize(("line", "code", "field"), rows(LINES))
def test_a_question_is_refused_at_the_field_that_is_wrong(line, code, field):
    for op in re.findall(r'"op":"(\w+)"', line)[:1]:
        line = line.replace("@", NEEDS.get(op, ""))
    error = refused(line)
    assert (error["code"], error["field"]) == (code, None if field == "-" else field)


@pytest.mark.parametrize(
    "period",
    [
        '["2026-03-01"]', '["2026-03-01","2026-03-01"]', '["2026-03-02","2026-03-01"]', "7",
        '["2026-03-01",null]', '["2026-03-01","2026-03-02","2026-03-03"]',
    ],
)  # fmt: skip
def test_a_period_has_a_start_before_its_end(period):
    error = refused(
        f'{{"op":"commit","committed":"1","spent":"0","period":{period}'
        ',"by":"day","currency":"USD"}'
    )
    assert error["field"].startswith("period")


def test_a_period_within_one_day_has_no_days():
    period = '["2026-03-01T01:00:00Z","2026-03-01T02:00:00Z"]'
    asked = f'{{"op":"commit","committed":"1","spent":"0","period":{period},"currency":"USD"'
    assert refused(asked + ',"by":"day"}')["code"] == "period_invalid"
    assert json.loads(line_answer((asked + ',"by":"second"}').encode()))["commitment"] == "1.00"


@pytest.mark.parametrize(
    "line",
    [
        b"\xff", b"[" * 100_000, b'{"a":' * 2_000, b"9" * 5_000, b'"\\ud800"', b"\xef\xbb\xbf{}",
    ],
)  # fmt: skip
def test_what_is_no_json_of_ours_is_refused(line):
    assert json.loads(line_answer(line))["error"]["field"] is None


def test_a_float_is_refused_also_where_the_text_of_it_was_just_answered():
    model = (
        '{"op":"price","model":{"type":"unit","unit_amount":%s},"quantity":"1","currency":"USD"}'
    )
    for _ in range(2):
        assert b'"0.50"' in line_answer((model % '"0.5"').encode())
        assert refused(model % "0.5")["field"] == "model.unit_amount"
        assert refused(model % '"0.5","unit_amount":"0.5"')["field"] == "model"
