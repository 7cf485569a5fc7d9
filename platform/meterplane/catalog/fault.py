"""One thing wrong with one field of one model. A user's mistake is a value."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """`problem` says what is wrong and what to do; it reads on from the field's name."""

    model: str
    field: str
    problem: str

    def __str__(self) -> str:
        return f"model {self.model!r}: {self.field} {self.problem}"
