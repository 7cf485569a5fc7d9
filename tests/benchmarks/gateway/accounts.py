"""Is every answer in the journal once? What a run fails for; no timing does.

A client that reads all its answers to their end gives exact numbers. wrk stops in the middle: of
each of its connections one request may have been admitted, served and settled without an answer
that it counted. Those are `unread`, and the only latitude there is.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from meterplane.contracts import usage
from meterplane.journal.directory import list_directories
from meterplane.journal.reader import frames_of, read_segment
from meterplane.journal.segment import list_segments
from tests.benchmarks.gateway.workload import STREAM_TOKENS_OUT, TOKENS_IN, TOKENS_OUT


@dataclass(slots=True)
class Account:
    """What one gateway owes an account of, and what its journal says."""

    gateway: str
    journal: Path
    answered: int = 0  # complete answers of status 200 that clients counted
    unread: int = 0  # at most so many more were under way when a client stopped
    admits: int = 0
    settles: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    damaged_segments: int = 0
    unexpected: int = 0  # settled twice, or never admitted
    miscounted: int = 0  # settled as ok with other tokens than the upstream reported
    running: set[UUID] = field(default_factory=set)

    def expect(self, answered: int, unread: int = 0) -> None:
        """A client got so many answers."""
        self.answered += answered
        self.unread += unread

    def read_sealed(self) -> None:
        """Take in what the journal has sealed, and delete it as the shipper would."""
        for directory in list_directories(self.journal):
            for segment in list_segments(directory):
                if not segment.sealed:
                    continue
                content = read_segment(segment.path)
                self.damaged_segments += content.damage is not None
                for frame in frames_of(content):
                    self._take(frame)
                segment.path.unlink()

    def _take(self, frame: usage.Frame) -> None:
        if isinstance(frame, usage.Admit):
            self.admits += 1
            self.running.add(frame.request_id)
        elif isinstance(frame, usage.Settle):
            if frame.request_id not in self.running:
                self.unexpected += 1
            self.running.discard(frame.request_id)
            self.settles[frame.status] += 1
            if frame.status == "ok":
                self.tokens += frame.tokens_in + frame.tokens_out
                wanted = STREAM_TOKENS_OUT if frame.stream else {TOKENS_OUT}
                counted = frame.tokens_in == TOKENS_IN and frame.tokens_out in wanted
                self.miscounted += not counted

    def problems(self, served: int) -> list[str]:
        """What is wrong, given what the upstream `served`. After the gateway has ended."""
        ok, settled = self.settles["ok"], self.settles.total()
        found = {
            "segments are damaged": self.damaged_segments,
            "requests were admitted and never settled": len(self.running),
            "settlements without an admission, or second ones": self.unexpected,
            "requests were settled with other token counts than the upstream's": self.miscounted,
            "answers are not in the journal": max(0, self.answered - ok),
            "more settled as answered than clients can have got": max(
                0, ok - self.answered - self.unread
            ),
            "answers of the upstream were never admitted": max(0, served - self.admits),
            "answers were settled that the upstream never gave": max(0, ok - served),
            "settlements too many or too few for the admissions": abs(self.admits - settled),
        }
        return [f"{self.gateway}: {count} {what}" for what, count in found.items() if count]

    def summary(self, served: int) -> dict[str, object]:
        """The numbers, for the report."""
        return {
            "answered": self.answered,
            "unread_max": self.unread,
            "admits": self.admits,
            "settles": dict(sorted(self.settles.items())),
            "upstream_served": served,
            "tokens": self.tokens,
        }
