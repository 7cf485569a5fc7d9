"""Rows of ours against rows of theirs, both ways. Pure; what differs is a sentence for a person.

A row is what one side knows of one thing: its own id, the other side's where it knows that, and
what must be equal. Kinds of things differ in where their rows come from (`kinds`), and not in here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from meterplane.kernel.money import minor_to_text

Problem = Literal["missing_there", "missing_here", "different", "left_over"]


@dataclass(frozen=True, slots=True)
class Row:
    """One thing as one side has it. `amount_minor` is None while there is nothing to compare; of
    `made_at` nothing is."""

    our_id: str
    their_id: str
    name: str
    status: str
    currency: str
    amount_minor: int | None
    made_at: datetime


@dataclass(frozen=True, slots=True)
class Found:
    """One difference."""

    problem: Problem
    our_id: str
    their_id: str
    said: str


def compare(ours: Sequence[Row], theirs: Sequence[Row]) -> list[Found]:
    """Every difference, in the order of our rows and then theirs. Equal sides give none.

    Rows are matched by the provider's id. One of ours without it was never brought there.
    """
    there = {row.their_id: row for row in theirs}
    own = {row.our_id: row for row in ours}
    found: list[Found] = []
    for row in ours:
        other = there.pop(row.their_id, None) if row.their_id else None
        if other is not None:
            told = _differences(row, other)
            if told:
                said = f"{row.name} and {other.name} there differ: {'; '.join(told)}"
                found.append(Found("different", row.our_id, row.their_id, said))
        elif row.their_id:
            said = f"{row.name}, {_money(row)}, is {row.their_id} by our books, which is not there"
            found.append(Found("missing_there", row.our_id, row.their_id, said))
        else:
            said = f"{row.name}, {_money(row)}, is {row.status} here and was not brought there yet"
            found.append(Found("missing_there", row.our_id, "", said))
    for row in there.values():
        found.append(Found("missing_here", row.our_id, row.their_id, _stranger(row, own)))
    return found


def _differences(ours: Row, theirs: Row) -> list[str]:
    compared = [("status", ours.status, theirs.status), ("id", ours.our_id, theirs.our_id)]
    if ours.amount_minor is not None and theirs.amount_minor is not None:
        compared.append(("amount", _money(ours), _money(theirs)))
    elif ours.currency != theirs.currency:
        compared.append(("currency", ours.currency, theirs.currency))
    return [
        f"{what} ours {mine}, theirs {other}" for what, mine, other in compared if mine != other
    ]


def _stranger(theirs: Row, own: dict[str, Row]) -> str:
    whose = own.get(theirs.our_id)
    what = f"{theirs.name}, {_money(theirs)}, {theirs.status} there,"
    if whose is not None:
        own_id = whose.their_id or "not there"
        return f"{what} is a second one of {whose.name}, whose own is {own_id}"
    if theirs.our_id:
        return f"{what} names {theirs.our_id} as ours, which has no such one"
    return f"{what} is of a customer of ours and was not made by us"


def _money(row: Row) -> str:
    if row.amount_minor is None:
        return f"no amount yet in {row.currency}"
    return f"{minor_to_text(row.amount_minor, row.currency)} {row.currency}"
