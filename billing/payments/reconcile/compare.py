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
    `made_at` nothing is. Ours is `under_way` while somebody works on it: what differs may be gone
    in a moment."""

    our_id: str
    their_id: str
    name: str
    status: str
    currency: str
    amount_minor: int | None
    made_at: datetime
    amount_name: str = "amount"
    under_way: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """One difference. Each side's amount in its own currency, as far as it has one."""

    problem: Problem
    our_id: str
    their_id: str
    said: str
    our_amount: str = ""
    their_amount: str = ""


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
                found.append(_found("different", row, other, said))
        elif row.their_id:
            said = f"{row.name}, {_money(row)}, is {row.their_id} by our books, which is not there"
            found.append(_found("missing_there", row, None, said))
        else:
            said = f"{row.name}, {_money(row)}, is {row.status} here and was not brought there yet"
            found.append(_found("missing_there", row, None, said))
    for row in there.values():
        found.append(_found("missing_here", None, row, _stranger(row, own)))
    return found


def _found(problem: Problem, ours: Row | None, theirs: Row | None, said: str) -> Found:
    named = ours or theirs
    return Found(
        problem,
        named.our_id if named else "",
        theirs.their_id if theirs else ours.their_id if ours else "",
        said,
        _amount(ours),
        _amount(theirs),
    )


def _differences(ours: Row, theirs: Row) -> list[str]:
    compared = [
        ("status", ours.status, theirs.status),
        ("id", ours.our_id, theirs.our_id),
        ("currency", ours.currency, theirs.currency or ours.currency),
    ]
    if ours.amount_minor is not None and theirs.amount_minor is not None:
        compared.append((ours.amount_name, _money(ours), _money(theirs)))
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
    return _amount(row) or f"no amount yet in {row.currency or 'any currency'}"


def _amount(row: Row | None) -> str:
    if row is None or row.amount_minor is None:
        return ""
    return f"{minor_to_text(row.amount_minor, row.currency)} {row.currency}"
