"""What a doctor says of one thing that it looked at."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "note", "broken"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `fix` is empty when there is nothing to do."""

    subject: str
    verdict: Verdict
    saying: str
    fix: str = ""
