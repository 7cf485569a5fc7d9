"""A second rater: the same answers from fractions, written from the description of the calculator.

It shares no code with the product and reckons in other ways where there are any: tiers by overlap,
draws by looking for the best grant again and again, splits by handing out one unit at a time.
"""

import re
from datetime import UTC, datetime
from fractions import Fraction
from math import floor

DIGITS = {"USD": 2, "EUR": 2, "JPY": 0, "KRW": 0, "KWD": 3, "TND": 3}


def number(text):
    return Fraction(text)


def away(value):
    """The nearest integer, halves away from zero."""
    return floor(value + Fraction(1, 2)) if value >= 0 else -floor(-value + Fraction(1, 2))


def money(units, currency):
    sign = "-" if units < 0 else ""
    text = str(abs(units)).zfill(DIGITS[currency] + 1)
    cut = len(text) - DIGITS[currency]
    return sign + text[:cut] + ("." + text[cut:] if text[cut:] else "")


def minor(value, currency):
    return away(value * 10 ** DIGITS[currency])


def plain(value):
    """A fraction that ends, as decimal text."""
    places = 0
    while (value * 10**places).denominator != 1:
        places += 1
    text = str(abs(int(value * 10**places))).zfill(places + 1)
    whole, part = text[: len(text) - places], text[len(text) - places :]
    return ("-" if value < 0 else "") + whole + ("." + part if part else "")


def convert(quantity, how):
    step = 10 ** how.get("decimals", 0)
    scaled = quantity / number(how["divide_by"]) * step
    if how["rounding"] == "floor":
        return Fraction(floor(scaled), step)
    if how["rounding"] == "ceil":
        return Fraction(-floor(-scaled), step)
    return Fraction(away(scaled), step)


def usage(model, quantity):
    """(tier, quantity, amount, kind) of each part."""
    kind = model["type"]
    if kind == "flat":
        return [(None, quantity, number(model["amount"]), None)]
    if kind == "dynamic":
        return [(None, quantity, quantity * number(model["multiplier"]), None)]
    if kind in ("unit", "package"):
        free = min(quantity, number(model.get("free_units", "0")))
        paid = quantity - free
        if kind == "unit":
            amount = paid * number(model["unit_amount"])
        else:
            size = number(model["package_size"])
            amount = -floor(-paid / size) * number(model["package_amount"])
        return [(None, free, Fraction(0), "free_units")] * bool(free) + [(None, paid, amount, None)]
    ends = [None if each["up_to"] is None else number(each["up_to"]) for each in model["tiers"]]
    found = []
    for place, (tier, end) in enumerate(zip(model["tiers"], ends, strict=True)):
        start = ends[place - 1] if place else Fraction(0)
        unit, flat = (number(tier.get(name, "0")) for name in ("unit_amount", "flat_amount"))
        reached = place == 0 or quantity > start
        if kind == "graduated" and reached:
            inside = (quantity if end is None else min(quantity, end)) - start
            found.append((place + 1, inside, inside * unit + flat, None))
        if kind == "volume" and reached and (end is None or quantity <= end):
            found.append((place + 1, quantity, quantity * unit + flat, None))
    return found


def price(asked):
    model, currency = asked["model"], asked["currency"]

    def rated(quantity, final):
        if model.get("unit_conversion"):
            quantity = convert(quantity, model["unit_conversion"])
        parts = usage(model, quantity)
        total = sum(part[2] for part in parts)
        most = model.get("maximum_amount")
        if most is not None and total > number(most):
            parts.append((None, Fraction(0), number(most) - total, "maximum_amount"))
            total = number(most)
        of_usage = total
        least = model.get("minimum_amount")
        if final and least is not None and total < number(least):
            parts.append((None, Fraction(0), number(least) - total, "minimum_amount"))
            total = number(least)
        return parts, of_usage, total

    final = asked.get("final", False)
    parts, of_usage, total = rated(number(asked["quantity"]), final)
    told = {"amount": money(minor(total, currency), currency), "exact": plain(total)}
    billed = None
    if "already_billed" in asked:
        billed = number(asked["already_billed"]) * 10 ** DIGITS[currency]
    elif "already_quantity" in asked:
        billed = minor(rated(number(asked["already_quantity"]), False)[2], currency)
    if billed is not None:
        told["net"] = money(int(minor(total, currency) - billed), currency)
    if final:
        told["true_up"] = money(minor(total, currency) - minor(of_usage, currency), currency)
    told["lines"] = [
        {"tier": tier, "quantity": plain(quantity), "amount": plain(amount)}
        | ({"kind": kind} if kind else {})
        for tier, quantity, amount, kind in parts
    ]
    return told


def moment(text):
    """Seconds since the epoch, cut."""
    year, month, day = (int(each) for each in text[:10].split("-"))
    seconds = Fraction(int(datetime(year, month, day, tzinfo=UTC).timestamp()))
    if rest := text[10:]:
        clock, zone = re.fullmatch(r"T(.*?)(Z|[+-]\d\d:\d\d)", rest).groups()
        hours, minutes, secs = clock.split(":")
        seconds += int(hours) * 3600 + int(minutes) * 60 + Fraction(secs)
        if zone != "Z":
            offset = int(zone[1:3]) * 3600 + int(zone[4:]) * 60
            seconds -= offset if zone[0] == "+" else -offset
    return seconds


def share(asked, start, end):
    size = 86_400 if asked["by"] == "day" else 1
    opens, closes = (floor(moment(each) / size) for each in asked["period"])
    return Fraction(floor(end / size) - floor(start / size), closes - opens)


def prorate(asked):
    part = share(asked, moment(asked["from"]), moment(asked["to"]))
    amount = minor(number(asked["amount"]) * part, asked["currency"])
    return {"amount": money(amount, asked["currency"])}


def change(asked):
    part = share(asked, moment(asked["at"]), moment(asked["period"][1]))
    credit = -minor(number(asked["old"]) * part, asked["currency"])
    charge = minor(number(asked["new"]) * part, asked["currency"])
    return {
        name: money(amount, asked["currency"])
        for name, amount in (("credit", credit), ("charge", charge), ("net", credit + charge))
    }


def commit(asked):
    start = moment(asked.get("from", asked["period"][0]))
    part = share(asked, start, moment(asked["period"][1]))
    promised = minor(number(asked["committed"]) * part, asked["currency"])
    missing = max(0, promised - minor(number(asked["spent"]), asked["currency"]))
    return {
        "commitment": money(promised, asked["currency"]),
        "true_up": money(missing, asked["currency"]),
    }


def goes_before(one, other):
    """Whether `one` is drawn before `other`."""

    def when(text):
        return moment(text) if text else Fraction(10**15)

    for a, b in (
        (one.get("priority", 0), other.get("priority", 0)),
        tuple(when(each.get("expires_at")) for each in (one, other)),
        (one.get("kind") != "promotional", other.get("kind") != "promotional"),
        tuple(when(each.get("created_at")) for each in (one, other)),
    ):
        if a != b:
            return a < b
    return one["id"] < other["id"]


def draw(asked):
    currency, waiting = asked["currency"], list(asked["grants"])
    left = number(asked["amount"])
    told = {"applied": [], "remaining": [], "expired": []}

    def note(name, grant, amount):
        if amount:
            units = minor(amount, currency)
            told[name].append({"id": grant["id"], "amount": money(units, currency)})

    while waiting:
        best = waiting[0]
        for each in waiting[1:]:
            if goes_before(each, best):
                best = each
        waiting.remove(best)
        amount = number(best["amount"])
        if best.get("expires_at") and moment(best["expires_at"]) <= moment(asked["at"]):
            note("expired", best, amount)
            continue
        used = min(left, amount)
        left -= used
        note("applied", best, used)
        note("remaining", best, amount - used)
    return told | {"due": money(minor(left, currency), currency)}


def credits_restore(asked):
    left, restored = number(asked["amount"]), []
    for each in asked["consumed"][::-1]:
        back = min(left, number(each["amount"]))
        left -= back
        if back:
            restored.append({"id": each["id"], "amount": plain(back)})
    return {"restored": restored}


def allocate(asked):
    currency = asked["currency"]
    total = number(asked["total"]) * 10 ** DIGITS[currency]
    weights = {key: number(weight) for key, weight in asked["weights"].items()}
    whole = sum(weights.values())
    exact = {key: abs(total) * weight / whole for key, weight in weights.items()}
    parts = {key: floor(value) for key, value in exact.items()}
    lost = {key: exact[key] - parts[key] for key in parts}
    while sum(parts.values()) < abs(total):
        most = max(lost.values())
        key = min(key for key in lost if lost[key] == most)
        parts[key] += 1
        del lost[key]
    sign = -1 if total < 0 else 1
    return {"parts": {key: money(sign * part, currency) for key, part in parts.items()}}


def round_(asked):
    return {"amount": money(minor(number(asked["amount"]), asked["currency"]), asked["currency"])}


RATERS = {
    "price": price, "prorate": prorate, "change": change, "commit": commit, "credits": draw,
    "credits_restore": credits_restore, "allocate": allocate, "round": round_,
}  # fmt: skip


def second_answer(asked):
    return RATERS[asked["op"]](asked)
