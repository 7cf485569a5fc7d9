"""What is refused: a price model or a question, the field that is named, and a word of the reason.

`@` stands for what else the model or the question needs.
"""

# In place of the model of a price of 1 USD.
MODELS = """
7                                                       | model                     | JSON object
[]                                                      | model                     | JSON object
1.5                                                     | model                     | JSON float
{}                                                      | model.type                | missing
{"type":"stairs"}                                       | model.type                | not known
{"type":null}                                           | model.type                | missing
{"type":["unit"]}                                       | model.type                | not known
{"type":"unit"}                                         | model.unit_amount         | missing
{"type":"unit","unit_amount":null}                      | model.unit_amount         | decimal text
{"type":"unit","unit_amount":0.5}                       | model.unit_amount         | JSON float
{"type":"unit","unit_amount":1e3}                       | model.unit_amount         | JSON float
{"type":"unit","unit_amount":1.0}                       | model.unit_amount         | JSON float
{"type":"unit","unit_amount":true}                      | model.unit_amount         | decimal text
{"type":"unit","unit_amount":NaN}                       | model.unit_amount         | NaN
{"type":"unit","unit_amount":-Infinity}                 | model.unit_amount         | Infinity
{"type":"unit","unit_amount":"NaN"}                     | model.unit_amount         | decimal text
{"type":"unit","unit_amount":"sNaN1"}                   | model.unit_amount         | decimal text
{"type":"unit","unit_amount":"Infinity"}                | model.unit_amount         | decimal text
{"type":"unit","unit_amount":""}                        | model.unit_amount         | decimal text
{"type":"unit","unit_amount":"1_000"}                   | model.unit_amount         | decimal text
{"type":"unit","unit_amount":" 1"}                      | model.unit_amount         | decimal text
{"type":"unit","unit_amount":"1,5"}                     | model.unit_amount         | decimal text
{"type":"unit","unit_amount":".5"}                      | model.unit_amount         | decimal text
{"type":"unit","unit_amount":"0x10"}                    | model.unit_amount         | decimal text
{"type":"unit","unit_amount":"\\u0661"}                 | model.unit_amount         | decimal text
{"type":"unit","unit_amount":"1e38"}                    | model.unit_amount         | digits
{"type":"unit","unit_amount":"1e-19"}                   | model.unit_amount         | digits
{"type":"unit","unit_amount":"1e999999999999999999"}    | model.unit_amount         | decimal text
{"type":"unit","unit_amount":"-1"}                      | model.unit_amount         | negative
{"type":"unit","unit_amount":"1","unit_price":"1"}      | model.unit_price          | not known
{"type":"unit","unit_amount":"1","tiers":[]}            | model.tiers               | not known
{"type":"unit","unit_amount":"1","unit_amount":"2"}     | model                     | twice
{"type":"unit","unit_amount":"1","free_units":"-1"}     | model.free_units          | negative
{"type":"unit","unit_amount":"1","\\ud800":"1"}         | model.\\ud800             | not known
{"type":"flat"}                                         | model.amount              | missing
{"type":"flat","amount":"1","minimum_amount":0.1}       | model.minimum_amount      | JSON float
{"type":"flat","amount":"1","minimum_amount":"-1"}      | model.minimum_amount      | negative
{"type":"flat","amount":"1","maximum_amount":"1","minimum_amount":"2"} \
| model.minimum_amount | above the
{"type":"package","package_size":"0","package_amount":"1"}  | model.package_size    | above 0
{"type":"package","package_amount":"1"}                 | model.package_size        | missing
{"type":"package","package_size":"1"}                   | model.package_amount      | missing
{"type":"dynamic"}                                      | model.multiplier          | missing
{"type":"dynamic","multiplier":"-1.2"}                  | model.multiplier          | negative
{"type":"graduated"}                                    | model.tiers               | missing
{"type":"graduated","tiers":[]}                         | model.tiers               | 1 to 1000
{"type":"graduated","tiers":{}}                         | model.tiers               | JSON list
{"type":"graduated","tiers":[7]}                        | model.tiers[0]            | JSON object
{"type":"graduated","tiers":[{"unit_amount":"1"}]}      | model.tiers[0].up_to      | missing
{"type":"graduated","tiers":[{"up_to":null}]}           | model.tiers[0].unit_amount | missing
{"type":"volume","tiers":[{"up_to":null,"unit_amount":1.5}]} | model.tiers[0].unit_amount | float
{"type":"volume","tiers":[{"up_to":null,"flat_amount":"-1"}]} \
| model.tiers[0].flat_amount | negative
{"type":"volume","tiers":[{"up_to":null,"amount":"1"}]} | model.tiers[0].amount | not known
{"type":"volume","tiers":[{"up_to":"5","unit_amount":"1"}]} | model.tiers[0].up_to | must be null
{"type":"volume","tiers":[{"up_to":"0","unit_amount":"1"},@]}      | model.tiers[0].up_to | above 0
{"type":"volume","tiers":[{"up_to":null,"unit_amount":"1"},@]} \
| model.tiers[0].up_to | only the last
{"type":"volume","tiers":[{"up_to":5.0,"unit_amount":"1"},@]} | model.tiers[0].up_to | JSON float
{"type":"volume","tiers":[{"up_to":"5","unit_amount":"1"},{"up_to":"5.0","unit_amount":"1"},@]} \
| model.tiers[1].up_to | above 5
{"type":"volume","tiers":[{"up_to":"5","unit_amount":"1"},{"up_to":"4","unit_amount":"1"},@]} \
| model.tiers[1].up_to | above 5
{"type":"flat","amount":"1","unit_conversion":"1000"}    | model.unit_conversion            | object
{"type":"flat","amount":"1","unit_conversion":{}} | model.unit_conversion.divide_by | missing
{"type":"flat","amount":"1","unit_conversion":{"divide_by":"0","rounding":"ceil"}} \
| model.unit_conversion.divide_by | above 0
{"type":"flat","amount":"1","unit_conversion":{"divide_by":"2"}} \
| model.unit_conversion.rounding | missing
{"type":"flat","amount":"1","unit_conversion":{"divide_by":"2","rounding":"up"}} \
| model.unit_conversion.rounding | one of
{"type":"flat","amount":"1","unit_conversion":{"divide_by":"2","rounding":"ceil","decimals":1.0}} \
| model.unit_conversion.decimals | float
{"type":"flat","amount":"1","unit_conversion":{"divide_by":"2","rounding":"ceil","decimals":true}} \
| model.unit_conversion.decimals | whole
{"type":"flat","amount":"1","unit_conversion":{"divide_by":"2","rounding":"ceil","decimals":19}} \
| model.unit_conversion.decimals | 0 to 18
"""

# Whole lines: the line, the code, the field.
LINES = """
                                                        | line_empty       | -
{"op":"round"                                           | json_invalid     | -
[]                                                      | field_invalid    | -
null                                                    | field_invalid    | -
1.5                                                     | field_invalid    | -
"price"                                                 | field_invalid    | -
{}                                                      | op_unknown       | op
{"op":"prices"}                                         | op_unknown       | op
{"op":{"op":"price"}}                                   | op_unknown       | op
{"op":"round","op":"round","amount":"1","currency":"USD"} | field_invalid  | -
{"op":"round","amount":"1"}                             | field_invalid    | currency
{"op":"round","amount":"1","currency":"usd"}            | currency_unknown | currency
{"op":"round","amount":"1","currency":"XAU"}            | currency_unknown | currency
{"op":"round","amount":"1","currency":["USD"]}          | currency_unknown | currency
{"op":"round","amount":1.5,"currency":"USD"}            | field_invalid    | amount
{"op":"round","amount":"1","currency":"USD","to":"2"}   | field_invalid    | to
{"op":"price",@}                                        | field_invalid    | quantity
{"op":"price","quantity":"-1",@}                        | field_invalid    | quantity
{"op":"price","quantity":22.0,@}                        | field_invalid    | quantity
{"op":"price","quantity":"1","already_billed":"-1",@}   | field_invalid    | already_billed
{"op":"price","quantity":"1","already_billed":"1.005",@} | field_invalid   | already_billed
{"op":"price","quantity":"1","already_quantity":"-1",@} | field_invalid    | already_quantity
{"op":"price","quantity":"1","final":"true",@}          | field_invalid    | final
{"op":"price","quantity":"1","final":1,@}               | field_invalid    | final
{"op":"prorate","amount":"1","from":"2026-02-28","to":"2026-03-02",@} | period_invalid | from
{"op":"prorate","amount":"1","from":"2026-03-02","to":"2026-04-02",@} | period_invalid | to
{"op":"prorate","amount":"1","from":"2026-03-02","to":"2026-03-01",@} | period_invalid | to
{"op":"prorate","amount":"1","from":"2026-02-30","to":"2026-03-01",@} | field_invalid  | from
{"op":"prorate","amount":"1","from":"20260301","to":"2026-03-01",@}   | field_invalid  | from
{"op":"prorate","amount":"1","from":"2026-03-01T10:00:00","to":"2026-03-02",@} \
| field_invalid | from
{"op":"prorate","amount":"1","from":1772323200,"to":"2026-03-02",@}   | field_invalid  | from
{"op":"prorate","amount":"1","from":"0001-01-01T00:00:00+01:00","to":"2026-03-02",@} \
| field_invalid | from
{"op":"change","old":"-1","new":"1","at":"2026-03-02",@} | field_invalid   | old
{"op":"change","old":"1","new":"1","at":"2026-05-02",@}  | period_invalid  | at
{"op":"commit","committed":"1","spent":"0.001",@}        | field_invalid   | spent
{"op":"commit","committed":"1","spent":"0","from":"2026-05-01",@} | period_invalid | from
{"op":"credits","grants":{},"amount":"1","at":"2026-03-01","currency":"USD"} \
| field_invalid | grants
{"op":"credits","grants":[{"id":"a","amount":"1"},{"id":"a","amount":"1"}],"amount":"1",\
"at":"2026-03-01","currency":"USD"} | grant_repeated | grants
{"op":"credits","grants":[{"id":"a","amount":"-1"}],"amount":"1","at":"2026-03-01",\
"currency":"USD"} | field_invalid | grants[0].amount
{"op":"credits","grants":[{"id":"a","amount":"1","priority":"1"}],"amount":"1",\
"at":"2026-03-01","currency":"USD"} | field_invalid | grants[0].priority
{"op":"credits","grants":[{"id":"\\ud800","amount":"1"}],"amount":"1","at":"2026-03-01",\
"currency":"USD"} | field_invalid | grants[0].id
{"op":"credits","grants":[{"id":"a","amount":"1","kind":"gift"}],"amount":"1","at":"2026-03-01",\
"currency":"USD"} | field_invalid | grants[0].kind
{"op":"credits_restore","consumed":[{"id":"a","amount":"1"}],"amount":"2"} \
| restore_too_large | amount
{"op":"credits_restore","consumed":[{"id":"a"}],"amount":"2"} | field_invalid | consumed[0].amount
{"op":"allocate","total":"1","weights":{},"currency":"USD"}          | weights_invalid | weights
{"op":"allocate","total":"1","weights":{"a":"0"},"currency":"USD"}   | weights_invalid | weights
{"op":"allocate","total":"1","weights":{"a":"-1"},"currency":"USD"}  | field_invalid   | weights.a
{"op":"allocate","total":"1","weights":{"a":0.5},"currency":"USD"}   | field_invalid   | weights.a
{"op":"allocate","total":"1.5","weights":{"a":"1"},"currency":"JPY"} | field_invalid   | total
{"op":"allocate","total":"1","weights":["a"],"currency":"USD"}       | field_invalid   | weights
"""

# The rest of a question, by its op.
NEEDS = {
    "price": '"model":{"type":"flat","amount":"1"},"currency":"USD"',
    "prorate": '"period":["2026-03-01","2026-04-01"],"by":"day","currency":"USD"',
    "change": '"period":["2026-03-01","2026-04-01"],"by":"day","currency":"USD"',
    "commit": '"period":["2026-03-01","2026-04-01"],"by":"day","currency":"USD"',
}
