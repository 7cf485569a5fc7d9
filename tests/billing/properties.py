"""What holds whatever the numbers: a few examples in the fast tier, ten thousand in the long one.

A run prints its seed; `PROPERTY_SEED=...` runs that one again.
"""

import os
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, seed, settings
from hypothesis.strategies import SearchStrategy

LONG_EXAMPLES = 10_000
LONG_S_MAX = 1800

long_tier = (pytest.mark.long, pytest.mark.timeout(LONG_S_MAX))


def try_examples(
    check: Callable[..., None], strategies: tuple[SearchStrategy[Any], ...], examples: int
) -> None:
    """Call `check` with so many examples."""
    chosen = int(os.environ.get("PROPERTY_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"PROPERTY_SEED={chosen}, {examples} examples")
    seed(chosen)(settings(max_examples=examples)(given(*strategies)(check)))()


def holds_for(
    *strategies: SearchStrategy[Any], quick_examples: int = 30
) -> Callable[[Callable[..., None]], Callable[[int], None]]:
    """Make a check of examples a test in both tiers."""

    def made(check: Callable[..., None]) -> Callable[[int], None]:
        @pytest.mark.parametrize(
            "examples", [quick_examples, pytest.param(LONG_EXAMPLES, marks=long_tier)]
        )
        def test(examples: int) -> None:
            try_examples(check, strategies, examples)

        test.__doc__ = check.__doc__
        return test

    return made
