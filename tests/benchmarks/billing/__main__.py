"""`make bench-billing`: what billing takes, on this machine.

Each part is a module with a `measure(quick)` that prints its figures and says whether its targets
are met; `--quick` is smaller. Parts may be named: `make bench-billing ARGS=calculator`.
"""

import argparse
import sys

from tests.benchmarks.billing import calculator, closing, pacing

PARTS = {"calculator": calculator.measure, "closing": closing.measure, "pacing": pacing.measure}


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-billing")
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all if none is named")
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    if unknown := set(chosen.parts) - set(PARTS):
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    met = [PARTS[name](chosen.quick) for name in chosen.parts or PARTS]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
