#!/usr/bin/env python3
"""Meterplane's command line.

`up`, `down`, `status` and `doctor` run before Django is configured, because they provide the
configuration; `calc` needs none. Every other command is Django's; while a stack runs, it gets that
stack's environment. Hyphens in a command's name are as good as underscores.

Started by a Python without our packages, it hands over to the checkout's virtual environment.
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
STACK_COMMANDS = ("up", "down", "status", "doctor")


def main(arguments: list[str]) -> int:
    """Run one command; the exit status."""
    use_own_environment()
    command = arguments[0].replace("-", "_") if arguments else "help"
    if command in STACK_COMMANDS:
        from meterplane.stack.command_line import run

        return run([command, *arguments[1:]])
    if command == "calc":
        from billing.calculator.stream import run as calculate

        return calculate(arguments[1:])

    from meterplane.stack.environment import adopt_running_stack

    adopt_running_stack()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "meterplane.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line([sys.argv[0], command, *arguments[1:]])
    return 0


def use_own_environment() -> None:
    """Replace this process by the virtual environment's Python if ours lacks our packages."""
    own = HERE / ".venv" / "bin" / "python"
    if Path(sys.prefix) == HERE / ".venv" or not own.exists():
        return
    try:
        import meterplane  # noqa: F401
    except ImportError:
        os.execv(own, [str(own), *sys.argv])  # noqa: S606


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
