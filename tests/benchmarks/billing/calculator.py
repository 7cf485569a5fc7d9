"""The calculator on one core: prices a second, beside the same lines decoded and written alone.

Rates are of processor time, which is not shared with what else the machine does. All kinds of line
are measured in turns within each round; the figure is the median of the rounds, with the slowest
beside it. The last one is of the command itself, from a pipe to a pipe, its start included, by the
clock on the wall.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from decimal import Decimal
from itertools import cycle
from pathlib import Path
from random import Random

import msgspec

from billing.calculator.stream import line_answer
from billing.pricing.price_model import read_price_model
from billing.rating.price import price
from meterplane.metering.external.exact_json import decode

ROOT = Path(__file__).resolve().parents[3]
TARGET_PER_S = 20_000
SEED = 6
ROUNDS = 9

TIERS = [
    {"up_to": "1000000", "unit_amount": "0.00000060", "flat_amount": "5"},
    {"up_to": "10000000", "unit_amount": "0.00000045"},
    {"up_to": None, "unit_amount": "0.00000030"},
]
MODELS: dict[str, dict[str, object]] = {
    "unit": {"type": "unit", "unit_amount": "0.00000015", "free_units": "1000"},
    "graduated": {"type": "graduated", "tiers": TIERS},
    "volume": {"type": "volume", "tiers": TIERS, "maximum_amount": "100"},
    "package": {"type": "package", "package_size": "1000", "package_amount": "0.02"},
    "converted": {
        "type": "unit",
        "unit_amount": "2.99",
        "unit_conversion": {"divide_by": "3600", "rounding": "ceil", "decimals": 2},
    },
}


def lines_of(model: dict[str, object], count: int, random: Random) -> list[bytes]:
    return [
        json.dumps(
            {
                "op": "price",
                "model": model,
                "quantity": str(random.randrange(10 ** random.randint(1, 9))),
                "currency": random.choice(["USD", "JPY", "KWD"]),
                "already_billed": "0",
                "final": bool(number % 2),
            }
        ).encode()
        for number in range(count)
    ]


def per_s(work: Callable[[bytes], object], lines: list[bytes]) -> float:
    began = time.process_time()
    for line in lines:
        work(line)
    return len(lines) / (time.process_time() - began)


def command_per_s(lines: Iterable[bytes], count: int) -> float:
    sent = b"\n".join(lines)
    began = time.perf_counter()
    told = subprocess.run(
        [sys.executable, "manage.py", "calc"], cwd=ROOT, input=sent, capture_output=True, check=True
    ).stdout
    took = time.perf_counter() - began
    if told.count(b"\n") != count or b'"error"' in told:
        sys.exit("The command did not answer every line.")
    return count / took


def measure(quick: bool) -> bool:
    """Print the figures; whether the target is met by the mix of all models."""
    count = 500 if quick else 4_000
    random = Random(SEED)
    lines = {name: lines_of(model, count, random) for name, model in MODELS.items()}
    mix = [line for each in zip(*lines.values(), strict=True) for line in each]
    one = line_answer(mix[0])
    answers = dict(zip(mix, map(json.loads, map(line_answer, mix)), strict=True))
    encode = msgspec.json.Encoder().encode
    read = cycle((read_price_model(MODELS["graduated"]), Decimal(12_345_678)) for _ in range(1))
    rows: list[tuple[str, Callable[[bytes], object], list[bytes]]] = [
        ("decode and encode alone", lambda line: (decode(line), encode(answers[line])), mix),
        ("a line, all models", line_answer, mix),
        *((f"a line, {name}", line_answer, each) for name, each in lines.items()),
        ("graduated, the function alone", lambda _: price(*next(read), "USD"), mix),
    ]
    found: dict[str, list[float]] = {name: [] for name, _, _ in rows}
    for _ in range(ROUNDS):
        for name, work, each in rows:
            found[name].append(per_s(work, each))
    print(f"\n  Calculator, one core, {len(mix):,} lines, seed {SEED}, {ROUNDS} rounds")
    print(f"  {'':34}{'prices/s':>12}{'slowest':>12}")
    for name, rates in found.items():
        print(f"  {name:34}{statistics.median(rates):>12,.0f}{min(rates):>12,.0f}")
    piped = command_per_s(mix * 5, len(mix) * 5)
    print(f"  {f'manage.py calc, {len(mix) * 5:,} lines':34}{piped:>12,.0f}")
    print(f"  such as {one.decode().strip()}")
    reached = statistics.median(found["a line, all models"])
    met = reached >= TARGET_PER_S
    print(f"  target {TARGET_PER_S:,}: {'met' if met else 'MISSED'}")
    return met
