"""Random questions that have an answer, of every kind; edges come up more often than chance."""

from datetime import UTC, datetime, timedelta
from random import Random

from tests.billing.calculator.second_rater import DIGITS

START = datetime(2024, 2, 1, tzinfo=UTC)  # a leap day is near


def decimal(random: Random, whole: int = 5, places: int = 6) -> str:
    """Not negative. Now and then zero, huge, tiny, or written unusually."""
    kind = random.random()
    if kind < 0.08:
        return random.choice(["0", "0.0", "-0", "0e5"])
    if kind < 0.13:
        return f"{random.randrange(1, 10**12)}e-{random.randrange(0, 13)}"
    if kind < 0.16:
        return str(random.randrange(10**30, 10**37))
    text = str(random.randrange(10 ** random.randint(1, whole)))
    if random.random() < 0.6:
        digits = random.randint(1, places)
        text += "." + str(random.randrange(10**digits)).zfill(digits)
    return text


def above_zero(random: Random) -> str:
    text = decimal(random)
    return text if any(digit in "123456789" for digit in text.partition("e")[0]) else "0.3"


def of_currency(random: Random, currency: str) -> str:
    units, digits = random.randrange(10 ** random.randint(1, 9)), DIGITS[currency]
    text = str(units).zfill(digits + 1)
    return text[: len(text) - digits] + ("." + text[-digits:] if digits else "")


def tiers(random: Random) -> list[dict[str, object]]:
    ends = sorted({random.randrange(1, 60_000) for _ in range(random.randrange(5))})
    scale = random.choice(["", "e-3", "e-1"])
    found: list[dict[str, object]] = []
    for end in [*(f"{each}{scale}" for each in ends), None]:
        tier: dict[str, object] = {"up_to": end}
        kind = random.randrange(3)
        if kind != 0:
            tier["unit_amount"] = decimal(random)
        if kind != 1:
            tier["flat_amount"] = decimal(random)
        found.append(tier)
    return found


def model(random: Random) -> dict[str, object]:
    kind = random.choice(["unit", "flat", "graduated", "volume", "package", "dynamic"])
    found: dict[str, object] = {"type": kind}
    if kind in ("unit", "package") and random.random() < 0.5:
        found["free_units"] = decimal(random)
    match kind:
        case "unit":
            found["unit_amount"] = decimal(random)
        case "flat":
            found["amount"] = decimal(random)
        case "package":
            found |= {"package_size": above_zero(random), "package_amount": decimal(random)}
        case "dynamic":
            found["multiplier"] = decimal(random, 1)
        case _:
            found["tiers"] = tiers(random)
    if random.random() < 0.3:
        found["minimum_amount"] = str(random.randrange(1000))
    if random.random() < 0.3:
        found["maximum_amount"] = f"{random.randrange(1000, 10**6)}.5"
    if random.random() < 0.25:
        found["unit_conversion"] = {
            "divide_by": random.choice(["1000", "3", "0.7", "1024", above_zero(random)]),
            "rounding": random.choice(["ceil", "floor", "half_up"]),
            "decimals": random.randrange(5),
        }
    return found


def quantity(random: Random, priced: dict[str, object]) -> str:
    """Often exactly at a tier's edge, or a hair beside it."""
    edges = [tier["up_to"] for tier in priced.get("tiers", []) if tier["up_to"]]  # type: ignore[attr-defined]
    if edges and random.random() < 0.4:
        edge = random.choice(edges)
        return edge if "e" in edge else edge + random.choice(["", ".0001"])
    return decimal(random)


def instant(random: Random, earliest: datetime, latest: datetime) -> datetime:
    seconds = int((latest - earliest).total_seconds())
    return earliest + timedelta(seconds=random.randint(0, seconds))


def text(random: Random, at: datetime) -> str:
    """At midnight a plain day half of the time; otherwise in some zone."""
    if at == at.replace(hour=0, minute=0, second=0) and random.random() < 0.5:
        return at.date().isoformat()
    hours = random.choice([0, 0, 2, -5])
    shown = (at + timedelta(hours=hours)).replace(tzinfo=None).isoformat()
    return shown + (f"{'+' if hours > 0 else '-'}{abs(hours):02}:00" if hours else "Z")


def of_period(random: Random) -> tuple[dict[str, object], datetime, datetime]:
    opens = START + timedelta(days=random.randrange(800))
    closes = opens + timedelta(days=random.choice([1, 7, 28, 29, 30, 31, 365, 366]))
    by = random.choice(["day", "second"])
    period = [text(random, opens), text(random, closes)]
    return {"period": period, "by": by}, opens, closes


def grants(random: Random, currency: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for number in random.sample(range(20), random.randrange(7)):
        grant: dict[str, object] = {"id": f"g{number}", "amount": of_currency(random, currency)}
        if random.random() < 0.8:
            grant["priority"] = random.randrange(3)
        if random.random() < 0.7:
            late = START + timedelta(days=random.randrange(4))
            grant["expires_at"] = random.choice([None, text(random, late)])
        if random.random() < 0.8:
            grant["kind"] = random.choice(["purchased", "promotional"])
        if random.random() < 0.8:
            grant["created_at"] = text(random, START - timedelta(days=random.randrange(3)))
        found.append(grant)
    return found


def question(random: Random) -> dict[str, object]:
    op = random.choice(
        ["price"] * 9
        + ["prorate", "change", "commit", "credits", "credits_restore", "allocate", "round"]
    )
    currency = random.choice(sorted(DIGITS))
    asked: dict[str, object] = {"op": op}
    if op != "credits_restore":
        asked["currency"] = currency
    sign = random.choice(["", "-"])
    match op:
        case "price":
            asked["model"] = priced = model(random)
            asked["quantity"] = quantity(random, priced)
            if random.random() < 0.3:
                asked["already_billed"] = of_currency(random, currency)
            if random.random() < 0.3:
                asked["already_quantity"] = quantity(random, priced)
            if random.random() < 0.6:
                asked["final"] = random.random() < 0.7
        case "prorate" | "change" | "commit":
            period, opens, closes = of_period(random)
            asked |= period
            first, last = sorted(instant(random, opens, closes) for _ in range(2))
            if op == "prorate":
                asked |= {"from": text(random, first), "to": text(random, last)}
                asked["amount"] = sign + decimal(random).removeprefix("-")
            elif op == "change":
                asked |= {"old": decimal(random), "new": decimal(random), "at": text(random, first)}
            else:
                asked |= {"committed": decimal(random), "spent": of_currency(random, currency)}
                if random.random() < 0.5:
                    asked["from"] = text(random, first)
        case "credits":
            asked |= {"grants": grants(random, currency), "at": text(random, START)}
            asked["at"] = text(random, START + timedelta(days=random.randrange(4)))
            asked["amount"] = of_currency(random, currency)
        case "credits_restore":
            consumed = [
                {"id": f"g{number}", "amount": str(random.randrange(100))}
                for number in range(random.randrange(6))
            ]
            most = sum(int(each["amount"]) for each in consumed)
            asked |= {"consumed": consumed, "amount": str(random.randint(0, most))}
        case "allocate":
            keys = random.sample("abcdefgh", random.randint(1, 8))
            asked["weights"] = {key: decimal(random, 2, 2) for key in keys[1:]}
            asked["weights"] |= {keys[0]: above_zero(random)}  # type: ignore[operator]
            asked["total"] = sign + of_currency(random, currency)
        case "round":
            asked["amount"] = sign + decimal(random).removeprefix("-")
    return asked
