"""Targets in turn, round by round, so that what else the machine does meets all alike."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.benchmarks.gateway.load import Sample
from tests.benchmarks.gateway.machine import Patience
from tests.benchmarks.gateway.targets import Target

FOREIGN_CORES_MAX = 0.2  # a run during which strangers used more is repeated
REPEATED_MAX = 3  # of one target


@dataclass(frozen=True, slots=True)
class Measured:
    """The medians of one target, and the runs they are of."""

    target: str
    median: Sample
    samples: Sequence[Sample]

    @property
    def disturbed(self) -> bool:
        """Strangers were busy even so."""
        return any(sample["foreign"] > FOREIGN_CORES_MAX for sample in self.samples)


def alternate(
    targets: Sequence[Target],
    once: Callable[[Target], Sample],
    *,
    rounds: int,
    groups: dict[str, list[int]],
    patience: Patience,
) -> list[Measured]:
    """`rounds` runs of each target in turn; those that strangers disturbed, again,
    for as long as there is patience.

    Errors of all runs are added up, also of those that are not kept; all else is a median.
    """
    samples: dict[str, list[Sample]] = {target.name: [] for target in targets}
    errors = dict.fromkeys(samples, 0.0)

    def run(target: Target) -> None:
        patience.wait_for_calm(groups)
        sample = once(target)
        samples[target.name].append(sample)
        errors[target.name] += sample["errors"]

    for _ in range(rounds):
        for target in targets:
            run(target)
    for target in targets:
        for _ in range(REPEATED_MAX):
            calm = sum(map(_is_calm, samples[target.name]))
            if calm >= rounds or patience.is_over:
                break
            run(target)
    results = []
    for name, all_of_it in samples.items():
        kept = sorted(all_of_it, key=lambda sample: sample["foreign"])[:rounds]
        median = {key: statistics.median(sample[key] for sample in kept) for key in kept[0]}
        results.append(Measured(name, median | {"errors": errors[name]}, kept))
    return results


def _is_calm(sample: Sample) -> bool:
    return sample["foreign"] <= FOREIGN_CORES_MAX
