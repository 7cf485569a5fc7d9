"""Everything but prices: questions and their answers, text for text."""

import pytest

from billing.calculator.stream import line_answer

MARCH = '"period":["2026-03-01","2026-04-01"]'
USD = '"currency":"USD"'
GRANT = '{"id":"%s","amount":"%s","priority":%d,"expires_at":%s,"kind":"%s","created_at":"%s"}'


def say(line):
    return line_answer(line.encode()).decode().removesuffix("\n")


# amount, currency, by, from, to, the period, and what the part costs
PRORATED = """
10  | USD | day    | 2026-03-15 | 2026-04-01 | 2026-03-01 2026-04-01 | 5.48
-10 | USD | day    | 2026-03-15 | 2026-04-01 | 2026-03-01 2026-04-01 | -5.48
10  | USD | day    | 2026-03-01 | 2026-04-01 | 2026-03-01 2026-04-01 | 10.00
10  | USD | day    | 2026-03-15 | 2026-03-15 | 2026-03-01 2026-04-01 | 0.00
31  | JPY | day    | 2026-03-01 | 2026-03-02 | 2026-03-01 2026-04-01 | 1
10  | KWD | day    | 2026-03-15 | 2026-04-01 | 2026-03-01 2026-04-01 | 5.484
29  | USD | day    | 2024-02-29 | 2024-03-01 | 2024-02-01 2024-03-01 | 1.00
366 | USD | day    | 2024-02-29 | 2024-03-01 | 2024-01-01 2025-01-01 | 1.00
864 | USD | day    | 2026-03-01T23:59:59Z      | 2026-03-02 | 2026-03-01 2026-03-02 | 864.00
864 | USD | second | 2026-03-01T23:59:59Z      | 2026-03-02 | 2026-03-01 2026-03-02 | 0.01
864 | USD | second | 2026-03-01T23:59:59.999Z  | 2026-03-02 | 2026-03-01 2026-03-02 | 0.01
2   | USD | day    | 2026-03-01T02:00:00+02:00 | 2026-03-02 | 2026-03-01 2026-03-03 | 1.00
2   | USD | day    | 2026-03-01T23:00:00-02:00 | 2026-03-03 | 2026-03-01 2026-03-03 | 1.00
"""

ANSWERS = f"""
{{"op":"change","old":"10","new":"20","at":"2026-03-15",{MARCH},"by":"day",{USD}}}
{{"credit":"-5.48","charge":"10.97","net":"5.49"}}

{{"op":"change","old":"20","new":"10","at":"2026-03-15T12:00:00Z",{MARCH},"by":"day",{USD}}}
{{"credit":"-10.97","charge":"5.48","net":"-5.49"}}

{{"op":"change","old":"10","new":"20","at":"2026-03-01",{MARCH},"by":"second",{USD}}}
{{"credit":"-10.00","charge":"20.00","net":"10.00"}}

{{"op":"change","old":"10","new":"20","at":"2026-04-01",{MARCH},"by":"day",{USD}}}
{{"credit":"0.00","charge":"0.00","net":"0.00"}}

{{"op":"commit","committed":"10000","spent":"1000",{MARCH},"by":"day",{USD}}}
{{"commitment":"10000.00","true_up":"9000.00"}}

{{"op":"commit","committed":"10000","spent":"1000",{MARCH},"from":"2026-03-15","by":"day",{USD}}}
{{"commitment":"5483.87","true_up":"4483.87"}}

{{"op":"commit","committed":"10000","spent":"12000.50",{MARCH},"by":"second",{USD}}}
{{"commitment":"10000.00","true_up":"0.00"}}

{{"op":"credits_restore","consumed":[{{"id":"a","amount":"5"}},{{"id":"b","amount":"6.50"}}],"amount":"8"}}
{{"restored":[{{"id":"b","amount":"6.5"}},{{"id":"a","amount":"1.5"}}]}}

{{"op":"credits_restore","consumed":[],"amount":"0"}}
{{"restored":[]}}

{{"op":"allocate","total":"0.05","weights":{{"a":"1","b":"1","c":"1"}},{USD}}}
{{"parts":{{"a":"0.02","b":"0.02","c":"0.01"}}}}

{{"op":"allocate","total":"-0.05","weights":{{"c":"1","b":"1","a":"1"}},{USD}}}
{{"parts":{{"a":"-0.02","b":"-0.02","c":"-0.01"}}}}

{{"op":"allocate","total":"10","weights":{{"a":"0","b":"0.5","c":"1.5"}},"currency":"JPY"}}
{{"parts":{{"a":"0","b":"3","c":"7"}}}}

{{"op":"allocate","total":"0","weights":{{"a":"1"}},"currency":"KWD"}}
{{"parts":{{"a":"0.000"}}}}

{{"op":"round","amount":"10.275",{USD}}}
{{"amount":"10.28"}}

{{"op":"round","amount":"-10.275",{USD}}}
{{"amount":"-10.28"}}

{{"op":"round","amount":"-0.004",{USD}}}
{{"amount":"0.00"}}

{{"op":"round","amount":"0.5","currency":"JPY"}}
{{"amount":"1"}}

{{"op":"round","amount":"1.0005","currency":"KWD"}}
{{"amount":"1.001"}}

{{"op":"round","amount":"99999999999999999999999999999999999999.995",{USD}}}
{{"amount":"100000000000000000000000000000000000000.00"}}
"""


@pytest.mark.parametrize("row", PRORATED.strip().splitlines())
def test_a_part_of_a_period_costs(row):
    amount, currency, by, start, end, period, costs = (cell.strip() for cell in row.split("|"))
    opens, closes = period.split()
    assert (
        say(
            f'{{"op":"prorate","amount":"{amount}","currency":"{currency}","by":"{by}"'
            f',"from":"{start}","to":"{end}","period":["{opens}","{closes}"]}}'
        )
        == f'{{"amount":"{costs}"}}'
    )


@pytest.mark.parametrize("pair", ANSWERS.strip().split("\n\n"))
def test_a_question_has_this_answer(pair):
    question, answered = pair.split("\n")
    assert say(question) == answered


# In the order they are drawn in: each is before the next for one reason.
IN_ORDER = [
    ("z", "1", 0, "null", "purchased", "2026-06-01"),  # the lowest priority, for all its rest
    ("y", "2", 1, '"2026-09-01"', "purchased", "2026-06-01"),  # expires first
    ("x", "4", 1, '"2026-10-01"', "promotional", "2026-06-01"),  # promotional
    ("w", "8", 1, '"2026-10-01"', "purchased", "2026-01-01"),  # older
    ("a", "16", 1, '"2026-10-01"', "purchased", "2026-01-02"),  # lower id
    ("b", "32", 1, '"2026-10-01"', "purchased", "2026-01-02"),
    ("c", "64", 1, "null", "promotional", "2025-01-01"),  # never expires
]


@pytest.mark.parametrize("turn", range(7))
def test_credits_are_drawn_in_order_however_they_are_handed_in(turn):
    grants = [GRANT % each for each in IN_ORDER]
    sent = ",".join(grants[turn:] + grants[:turn])
    asked = f'{{"op":"credits",{USD},"grants":[{sent}],"amount":"20","at":"2026-08-01"}}'
    assert say(asked) == (
        '{"applied":[{"id":"z","amount":"1.00"},{"id":"y","amount":"2.00"},{"id":"x","amount":"4.00"},'
        '{"id":"w","amount":"8.00"},{"id":"a","amount":"5.00"}],'
        '"remaining":[{"id":"a","amount":"11.00"},{"id":"b","amount":"32.00"},'
        '{"id":"c","amount":"64.00"}],"due":"0.00","expired":[]}'
    )


def test_what_expires_at_the_instant_pays_nothing_and_what_is_not_covered_is_due():
    grants = ",".join(
        [
            GRANT % ("gone", "7", 0, '"2026-08-01T02:00:00+02:00"', "purchased", "2026-01-01"),
            GRANT % ("last", "50", 9, '"2026-08-01T00:00:01Z"', "purchased", "2026-01-01"),
            '{"id":"empty","amount":"0"}',
        ]
    )
    asked = f'{{"op":"credits",{USD},"grants":[{grants}],"amount":"120","at":"2026-08-01"}}'
    assert say(asked) == (
        '{"applied":[{"id":"last","amount":"50.00"}],"remaining":[],"due":"70.00",'
        '"expired":[{"id":"gone","amount":"7.00"}]}'
    )
