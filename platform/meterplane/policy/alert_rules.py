"""What is to be told of a limit, from what is known of one of its windows. Pure.

Of a limit that usage tells of (a budget, a day's quota) it is told what share was reached: the
highest of 50, 80 and 100 % only, and never again a lower one in that window, nor the same one when
the limit was raised meanwhile. Shares are compared in integers: `used * 100 >= percent * amount`.
Of an amount of nothing, all is used once any was used.

A budget that is enforced refuses what does not fit, so that as a rule a little of it is never used.
It counts as used up, 100 %, once it has refused a request with `EXHAUSTED_PERCENT` used; one that
refuses earlier, because the request alone asks for more than is left, is told as hit. A day's
quota likewise. Other limits (rates, requests at once) are only ever hit.

A prepaid balance has no share: it is told below a floor, once until more is paid in; so is credit.
"""

from collections.abc import Collection
from dataclasses import dataclass

from meterplane.contracts.admission_keys import LimitWindowName
from meterplane.policy.models import Alert

PERCENTS = (100, 80, 50)
EXHAUSTED_PERCENT = 80
HIT, BALANCE = Alert.Threshold.HIT.value, Alert.Threshold.BALANCE.value
USED_UP = Alert.Threshold.ALL.value


@dataclass(frozen=True, slots=True)
class Reading:
    """A limit in one window: what holds and what was used, in the limit's unit.

    `amount` None: the limit is gone. `used` None: usage does not tell.
    """

    amount: int | None
    mode: str
    used: int | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """An alert to raise, or `hits` to add to one that was."""

    name: LimitWindowName
    threshold: str
    reading: Reading
    hits: int = 0


def of_share(
    name: LimitWindowName, reading: Reading, hits: int, told: Collection[str]
) -> Told | None:
    """What a window's use calls for, after `hits` more. `told` are its thresholds so far."""
    reached = _percent(reading, refused=hits > 0 or HIT in told)
    before = max((int(each) for each in told if each not in (HIT, BALANCE)), default=0)
    if reached > before:
        return Told(name, str(reached), reading, hits if reached == 100 else 0)
    return None


def of_hits(
    name: LimitWindowName, reading: Reading, hits: int, told: Collection[str]
) -> Told | None:
    """What hits call for: once a window is told to be used up, they are counted there."""
    if not hits:
        return None
    return Told(name, USED_UP if USED_UP in told else HIT, reading, hits)


def of_balance(
    name: LimitWindowName, reading: Reading, floor_nano: int, told: Collection[str]
) -> Told | None:
    """What a prepaid balance calls for: `amount` was paid in, `used` was spent."""
    if reading.amount is None or reading.used is None or BALANCE in told:
        return None
    if reading.amount - reading.used < floor_nano:
        return Told(name, BALANCE, reading)
    return None


def _percent(reading: Reading, *, refused: bool) -> int:
    """The highest share that is reached; 0 for none."""
    if reading.amount is None or reading.used is None:
        return 0
    if reading.amount == 0:
        return 100 if reading.used or refused else 0
    if refused and _reaches(reading.used, EXHAUSTED_PERCENT, reading.amount):
        return 100
    return next((p for p in PERCENTS if _reaches(reading.used, p, reading.amount)), 0)


def _reaches(used: int, percent: int, amount: int) -> bool:
    return used * 100 >= percent * amount
