"""Records of running sandboxes, read back and judged at the end of every test.

Whoever starts a sandbox by `command` has all it is asked and says judged: `complaints` reads what
every record of this process has gained since it was last asked.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

SUFFIX = ".said"
_ROW = re.compile(r"\[[0-9]+\]")  # the same complaint about every row is one

_records: dict[Path, int] = {}


def command(data: Path, *arguments: str) -> list[str]:
    """How to start a sandbox over this data file so that it is overheard."""
    record = data.with_suffix(SUFFIX)
    _records.setdefault(record, 0)
    return [
        *(sys.executable, "-m", "tests.stripe_schema.recorded", str(record)),
        *("--data", str(data), *arguments),
    ]


def complaints() -> list[str]:
    """Everything said since the last call that Stripe would not have said or taken, once each."""
    found: dict[str, None] = {}
    for record, read in _records.items():
        if not record.exists() or record.stat().st_size == read:
            continue
        with record.open("rb") as lines:
            lines.seek(read)
            for line in lines:
                if not line.endswith(b"\n"):
                    break  # still being written
                read += len(line)
                found |= dict.fromkeys(_ROW.sub("[]", each) for each in judge(json.loads(line)))
        _records[record] = read
    return list(found)


def judge(said: dict[str, Any]) -> list[str]:
    """Complaints about one line of a record."""
    # Only now: tests that start no sandbox do not pay for Stripe's types.
    from tests.stripe_schema.exchange import Exchange, installed

    if "event" in said:
        return installed().check_event(said["event"])
    exchange = Exchange(**said)
    return installed().check(exchange) if exchange.is_api else []
