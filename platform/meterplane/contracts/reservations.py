"""What is held in the admission Redis for a request, and how it is given back or granted.

`admission.lua` writes a record for every reservation: what it holds, of which limits, by which
rules. Whoever finds it can give it back: the worker that made it, or, when that worker is gone, who
recovers its journal. Both scripts are idempotent.
"""

from pathlib import Path
from uuid import UUID

import msgspec

from meterplane.contracts import admission_keys as names
from meterplane.contracts import windows

_FOLDER = Path(__file__).parent
SETTLE = (_FOLDER / "settle.lua").read_text()
CREDIT = (_FOLDER / "credit.lua").read_text()

MARK_CHARS = 8
POOL_KEEP_S = 40 * 86_400  # a month, and the longest request after it

Call = tuple[list[str], list[str]]  # the keys and the arguments of a script


def mark_of(journal: Path) -> str:
    """What the tokens of the worker begin with that writes this journal: eight digits.

    They are random ones of the directory's own id, so that who finds a dead worker's journal can
    find its reservations, those too that it was killed before writing down.
    """
    return journal.name[-MARK_CHARS:]


class Granted(msgspec.Struct, frozen=True, gc=False):
    """What `take_budget` answered: a block in nano, and the window's total and revision after it.

    Where the block is 0: `stranded`, that grants of an epoch that is over are not accounted for
    yet; `epoch_nano`, all that was granted in this one; `under_way`, that one was granted just now
    which the pool did not have when it was found short.
    """

    block_nano: int
    granted_nano: int
    revision: int
    stranded: bool = False
    epoch_nano: int = 0
    under_way: bool = False


def settle_call(
    reservation_key: str, record: bytes, cost_nano: int, tokens_in: int, tokens_out: int
) -> Call:
    """The call of `settle.lua` that gives back a reservation found by its key.

    `record` is its value. Raises `ValueError` when that is no reservation's.
    """
    _, limits, rules = record.decode().split("\n")
    keys = limits.split(" ") if limits else []
    return [*keys, reservation_key], [*rules.split(" "), f"{cost_nano} {tokens_in} {tokens_out}"]


def credit_call(tenant_id: UUID, pool: str, epoch: str, grant_id: UUID, granted: Granted) -> Call:
    """The call of `credit.lua` for a block granted to a pool in an epoch."""
    named = names.limit_named(pool)
    is_endless = named is not None and windows.is_endless(named.label)
    return [names.epoch(tenant_id), names.grants(tenant_id), pool], [
        epoch,
        str(grant_id),
        str(granted.block_nano),
        str(POOL_KEEP_S),
        str(granted.granted_nano),
        str(granted.revision),
        "0" if is_endless else str(POOL_KEEP_S),
    ]
