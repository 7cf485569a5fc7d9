"""The calculator's prices, row by row."""

import json
import re

import pytest

from billing.calculator.stream import line_answer
from tests.billing.calculator.price_table import MODELS, PARTS, PRICES


def rows(table):
    return [[cell.strip() for cell in row.split("|")] for row in table.strip().splitlines()]


NAMED = dict(re.findall(r"^(\w+) +(\{.*?\})$(?=\n\w|\Z)", MODELS.strip(), re.M | re.S))


def asked(model, quantity, currency, more=""):
    line = f'{{"op":"price","model":{NAMED[model]},"quantity":"{quantity}"'
    line += f',"currency":"{currency}"{"," if more else ""}{more}}}'
    return json.loads(line_answer(line.replace("\n", " ").encode()))


def lines(text):
    found = []
    for each in text.split("; "):
        tier, quantity, amount, kind = re.fullmatch(r"(.+): (.+) = (\S+) ?(.*)", each).groups()
        line = {"tier": None if tier == "-" else int(tier), "quantity": quantity, "amount": amount}
        found.append(line | ({"kind": kind} if kind else {}))
    return found


@pytest.mark.parametrize(
    ("model", "quantity", "currency", "exact", "amount", "parts"),
    rows(PRICES),
    ids=lambda cell: cell.split(":")[0],
)
def test_a_quantity_costs(model, quantity, currency, exact, amount, parts):
    assert asked(model, quantity, currency) == {
        "amount": amount, "exact": exact, "lines": lines(parts),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("model", "quantity", "currency", "more", "amount", "net", "true_up"), rows(PARTS)
)
def test_a_part_adds_what_the_whole_costs_beyond_what_was_billed(
    model, quantity, currency, more, amount, net, true_up
):
    told = asked(model, quantity, currency, more)
    assert told["amount"] == amount
    assert (told.get("net", "-"), told.get("true_up", "-")) == (net, true_up)


def test_every_model_of_the_table_is_priced():
    assert len(NAMED) == 17
    assert {row[0] for row in rows(PRICES) + rows(PARTS)} == set(NAMED)


def test_a_true_up_is_to_the_cent_what_billed_usage_lacks():
    # 95.005 was billed as 95.01: 5.00 on top, rounded for itself, would make 100.01 of 100.
    model = '"model":{"type":"unit","unit_amount":"95.005","minimum_amount":"100"}'
    line = f'{{"op":"price",{model},"quantity":"1","currency":"USD","final":true}}'
    told = json.loads(line_answer(line.encode()))
    assert (told["amount"], told["true_up"]) == ("100.00", "4.99")
