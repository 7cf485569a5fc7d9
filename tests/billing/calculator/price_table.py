"""Prices to be checked with a pocket calculator.

A model is named once. A row is: model, quantity, currency, exact, amount, lines; a line is
`tier: quantity = amount`, `-` where there is no tier, and the kind of a line that is no usage.
"""

MODELS = """
per_unit      {"type":"unit","unit_amount":"0.00000015"}
after_free    {"type":"unit","unit_amount":"0.5","free_units":"100"}
fee           {"type":"flat","amount":"10"}
stairs        {"type":"graduated","tiers":[{"up_to":"5","unit_amount":"0","flat_amount":"100"},
              {"up_to":"10","unit_amount":"10"},{"up_to":"15","unit_amount":"5"},
              {"up_to":null,"unit_amount":"1"}]}
stairs_fees   {"type":"graduated","tiers":[{"up_to":"5","unit_amount":"1","flat_amount":"7"},
              {"up_to":null,"unit_amount":"0.5","flat_amount":"3"}]}
bulk          {"type":"volume","tiers":[{"up_to":"5","unit_amount":"10","flat_amount":"2"},
              {"up_to":"10","unit_amount":"4"},{"up_to":null,"unit_amount":"1","flat_amount":"50"}]}
packs         {"type":"package","package_size":"10","package_amount":"100"}
packs_free    {"type":"package","package_size":"10","package_amount":"100","free_units":"5"}
markup        {"type":"dynamic","multiplier":"1.33333"}
capped        {"type":"unit","unit_amount":"2","maximum_amount":"30"}
at_least      {"type":"unit","unit_amount":"2","minimum_amount":"30"}
fee_at_least  {"type":"flat","amount":"10","minimum_amount":"4","maximum_amount":"10"}
kilo_up       {"type":"unit","unit_amount":"3","unit_conversion":
              {"divide_by":"1000","rounding":"ceil","decimals":0}}
kilo_down     {"type":"unit","unit_amount":"3","unit_conversion":
              {"divide_by":"1000","rounding":"floor","decimals":0}}
kilo_half     {"type":"unit","unit_amount":"3","unit_conversion":
              {"divide_by":"1000","rounding":"half_up","decimals":0}}
thirds        {"type":"unit","unit_amount":"3","unit_conversion":
              {"divide_by":"3","rounding":"half_up","decimals":2}}
hours_tiered  {"type":"graduated","unit_conversion":{"divide_by":"3600","rounding":"ceil"},
              "tiers":[{"up_to":"2","unit_amount":"8"},{"up_to":null,"unit_amount":"6"}]}
"""

PRICES = """
per_unit     | 0        | USD | 0           | 0.00    | -: 0 = 0
per_unit     | 1204     | USD | 0.0001806   | 0.00    | -: 1204 = 0.0001806
per_unit     | 33333    | USD | 0.00499995  | 0.00    | -: 33333 = 0.00499995
per_unit     | 33334    | USD | 0.0050001   | 0.01    | -: 33334 = 0.0050001
per_unit     | 33334    | KWD | 0.0050001   | 0.005   | -: 33334 = 0.0050001
per_unit     | 1e7      | JPY | 1.5         | 2       | -: 10000000 = 1.5
per_unit     | 3333333  | JPY | 0.49999995  | 0       | -: 3333333 = 0.49999995
after_free   | 0        | USD | 0           | 0.00    | -: 0 = 0
after_free   | 40       | USD | 0           | 0.00    | -: 40 = 0 free_units; -: 0 = 0
after_free   | 100      | USD | 0           | 0.00    | -: 100 = 0 free_units; -: 0 = 0
after_free   | 100.01   | USD | 0.005       | 0.01    | -: 100 = 0 free_units; -: 0.01 = 0.005
after_free   | 101      | JPY | 0.5         | 1       | -: 100 = 0 free_units; -: 1 = 0.5
fee          | 0        | USD | 10          | 10.00   | -: 0 = 10
fee          | 12345    | JPY | 10          | 10      | -: 12345 = 10
fee          | 1        | KWD | 10          | 10.000  | -: 1 = 10
stairs       | 0        | USD | 100         | 100.00  | 1: 0 = 100
stairs       | 5        | USD | 100         | 100.00  | 1: 5 = 100
stairs       | 5.1      | USD | 101         | 101.00  | 1: 5 = 100; 2: 0.1 = 1
stairs       | 10       | USD | 150         | 150.00  | 1: 5 = 100; 2: 5 = 50
stairs       | 12       | USD | 160         | 160.00  | 1: 5 = 100; 2: 5 = 50; 3: 2 = 10
stairs       | 22       | USD | 182         | 182.00  | 1: 5 = 100; 2: 5 = 50; 3: 5 = 25; 4: 7 = 7
stairs       | 22       | JPY | 182         | 182     | 1: 5 = 100; 2: 5 = 50; 3: 5 = 25; 4: 7 = 7
stairs       | 22       | KWD | 182         | 182.000 | 1: 5 = 100; 2: 5 = 50; 3: 5 = 25; 4: 7 = 7
stairs_fees  | 0        | USD | 7           | 7.00    | 1: 0 = 7
stairs_fees  | 5        | USD | 12          | 12.00   | 1: 5 = 12
stairs_fees  | 5.001    | USD | 15.0005     | 15.00   | 1: 5 = 12; 2: 0.001 = 3.0005
stairs_fees  | 5.001    | KWD | 15.0005     | 15.001  | 1: 5 = 12; 2: 0.001 = 3.0005
bulk         | 0        | USD | 2           | 2.00    | 1: 0 = 2
bulk         | 5        | USD | 52          | 52.00   | 1: 5 = 52
bulk         | 5.5      | USD | 22          | 22.00   | 2: 5.5 = 22
bulk         | 10       | USD | 40          | 40.00   | 2: 10 = 40
bulk         | 11       | USD | 61          | 61.00   | 3: 11 = 61
packs        | 0        | USD | 0           | 0.00    | -: 0 = 0
packs        | 0.001    | USD | 100         | 100.00  | -: 0.001 = 100
packs        | 10       | USD | 100         | 100.00  | -: 10 = 100
packs        | 10.5     | USD | 200         | 200.00  | -: 10.5 = 200
packs        | 22       | USD | 300         | 300.00  | -: 22 = 300
packs_free   | 5        | USD | 0           | 0.00    | -: 5 = 0 free_units; -: 0 = 0
packs_free   | 15       | USD | 100         | 100.00  | -: 5 = 0 free_units; -: 10 = 100
packs_free   | 16       | USD | 200         | 200.00  | -: 5 = 0 free_units; -: 11 = 200
markup       | 3        | USD | 3.99999     | 4.00    | -: 3 = 3.99999
markup       | 0.0015   | KWD | 0.001999995 | 0.002   | -: 0.0015 = 0.001999995
capped       | 15       | USD | 30          | 30.00   | -: 15 = 30
capped       | 16       | USD | 30          | 30.00   | -: 16 = 32; -: 0 = -2 maximum_amount
at_least     | 3        | USD | 6           | 6.00    | -: 3 = 6
kilo_up      | 1000     | USD | 3           | 3.00    | -: 1 = 3
kilo_up      | 1001     | USD | 6           | 6.00    | -: 2 = 6
kilo_down    | 1999     | USD | 3           | 3.00    | -: 1 = 3
kilo_down    | 999      | USD | 0           | 0.00    | -: 0 = 0
kilo_half    | 1499     | USD | 3           | 3.00    | -: 1 = 3
kilo_half    | 1500     | USD | 6           | 6.00    | -: 2 = 6
thirds       | 1        | USD | 0.99        | 0.99    | -: 0.33 = 0.99
thirds       | 2        | USD | 2.01        | 2.01    | -: 0.67 = 2.01
hours_tiered | 7200     | USD | 16          | 16.00   | 1: 2 = 16
hours_tiered | 7201     | USD | 22          | 22.00   | 1: 2 = 16; 2: 1 = 6
"""

# model, quantity, currency, what else is asked, amount, net, true_up
PARTS = """
stairs       | 22  | USD | "already_billed":"160","already_quantity":"12" | 182.00 | 22.00  | -
stairs       | 22  | USD | "already_quantity":"12"                       | 182.00 | 22.00  | -
stairs       | 22  | USD | "already_billed":"160"                        | 182.00 | 22.00  | -
stairs       | 22  | USD | "final":true                                  | 182.00 | -      | 0.00
stairs       | 12  | USD | "already_billed":"182.00"                     | 160.00 | -22.00 | -
bulk         | 5.5 | USD | "already_quantity":"5"                        | 22.00  | -30.00 | -
capped       | 40  | USD | "already_billed":"28"                         | 30.00  | 2.00   | -
capped       | 40  | USD | "already_quantity":"20"                       | 30.00  | 0.00   | -
at_least     | 3   | USD | "final":false                                 | 6.00   | -      | -
at_least     | 3   | USD | "final":true                                  | 30.00  | -      | 24.00
at_least     | 3   | USD | "final":true,"already_billed":"4"             | 30.00  | 26.00  | 24.00
at_least     | 15  | USD | "final":true                                  | 30.00  | -      | 0.00
at_least     | 0   | JPY | "final":true                                  | 30     | -      | 30
fee_at_least | 0   | KWD | "final":true,"already_billed":"10"            | 10.000 | 0.000  | 0.000
"""
