"""`up`, `down`, `status` and `doctor`: options in, exit status out.

Exit statuses: 0 done or healthy, 1 failed or unhealthy, 2 wrong usage, 3 nothing runs (`status`).
"""

import argparse

from rich.console import Console

from meterplane.stack import doctor, down, layout, ports, screen, waiting_usage
from meterplane.stack.up import UpOptions, up

NOTHING_RUNS = 3
PLAIN_WIDTH = 160  # a log or a pipe has no edge; tables are cut at none


def run(arguments: list[str]) -> int:
    """Run one command of the stack."""
    options = _parser().parse_args(arguments)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    place = layout.current()
    if options.command == "up":
        return up(
            place,
            UpOptions(
                port_base=options.port_base,
                detach=options.detach,
                reset=options.reset,
                yes=options.yes,
                supervise=options.supervise,
            ),
            console,
        )
    if options.command == "down":
        return _down(place, console)
    if options.command == "status":
        return _status(place, console)
    findings = doctor.examine(place)
    return doctor.tell_json(findings) if options.json else doctor.tell(findings, console)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="manage.py")
    commands = parser.add_subparsers(dest="command", required=True)
    up_parser = commands.add_parser("up", help="start everything")
    up_parser.add_argument("--detach", action="store_true", help="return when ready")
    up_parser.add_argument(
        "--port-base",
        type=int,
        default=ports.USUAL_BASE,
        metavar="N",
        help=f"first of seven ports (usual: {ports.USUAL_BASE})",
    )
    up_parser.add_argument("--reset", action="store_true", help="remove all data first, asking")
    up_parser.add_argument("--yes", action="store_true", help="with --reset: do not ask")
    up_parser.add_argument("--supervise", action="store_true", help=argparse.SUPPRESS)
    commands.add_parser("down", help="stop what `up` started; data stays")
    commands.add_parser("status", help="show what runs")
    doctor_parser = commands.add_parser(
        "doctor", help="check this machine, this installation and its Stripe account"
    )
    doctor_parser.add_argument("--json", action="store_true", help="for a program")
    return parser


def _down(place: layout.Layout, console: Console) -> int:
    with screen.Screen(console) as shown:
        shown.settle()
        if (found := down.running(place)) is not None:
            shown.begin_with(found)
        stopped = down.stop(place, shown.show)
    leftovers = down.stop_leftovers(place)
    for name in leftovers:
        console.print(f"  ended {name}, left behind by a supervisor that was killed")
    if stopped is None and not leftovers:
        console.print("  Nothing of this installation runs.")
    else:
        console.print("  Stopped. Data stays; `make up` goes on where it was.")
    return 0


def _status(place: layout.Layout, console: Console) -> int:
    found = down.running(place)
    if found is None:
        console.print("  Nothing of this installation runs. Start it with `make up`.")
        return NOTHING_RUNS
    console.print(f"\n  Meterplane is {found.phase} (supervisor: pid {found.supervisor.pid})\n")
    console.print(screen.status_table(found))
    waiting = waiting_usage.found_in(place.journal)
    if waiting is not None:
        console.print(f"\n  Journal: {waiting_usage.line_of(waiting)}")
    console.print()
    unwell = [each for each in found.components if each.state == "failed" or each.detail]
    return 0 if found.phase == "ready" and not unwell else 1
