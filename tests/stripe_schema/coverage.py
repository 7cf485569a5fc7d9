"""`python -m tests.stripe_schema.coverage`: what the sandbox's own suite never tries.

Runs the suite, reads what its sandboxes wrote down, and lists: calls that are simulated and were
never answered well; parameters they take that nobody sent; members of answers that were never
seen with a value; parameters Stripe has that were refused as unknown; and how many of Stripe's
calls are not simulated at all. With records as arguments nothing is run and those are read.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stripe_sandbox import params
from stripe_sandbox.routes import ENDPOINTS
from tests.stripe_schema.exchange import Exchange, installed
from tests.stripe_schema.kinds import Either, Kind, Named, Page, Rows
from tests.stripe_schema.operations import Operation
from tests.stripe_schema.recording import SUFFIX
from tests.stripe_schema.requests import UNKNOWN, Form, decode

ROOT = Path(__file__).resolve().parents[2]
SUITE = "tests/stripe_sandbox"


@dataclass(slots=True)
class Tried:
    """What records show of calls, their parameters and the members of their answers."""

    calls: set[str] = field(default_factory=set)
    sent: set[tuple[str, str]] = field(default_factory=set)
    refused: set[tuple[str, str]] = field(default_factory=set)
    seen: dict[str, set[str]] = field(default_factory=dict)  # class name -> members with a value

    def add(self, exchange: Exchange) -> None:
        """Note one exchange."""
        address = urlsplit(exchange.target)
        operation = installed().operations.find(exchange.method, address.path)
        if operation is None or not exchange.is_api:
            return
        call, answer = str(operation), json.loads(exchange.answer)
        if exchange.status >= 400:
            unknown = answer["error"].get("code") == "parameter_unknown"
            wrong = installed().check_request(exchange.method, exchange.target, exchange.body)
            name = str(answer["error"].get("param"))
            if unknown and f"{name}{UNKNOWN}" not in wrong:
                self.refused.add((call, name))
            return
        self.calls.add(call)
        form = decode("&".join(part for part in (address.query, exchange.body) if part))
        self.sent |= {(call, name) for name in _names(form)}
        self._look(installed().operations.answer(operation), answer)

    def _look(self, kind: Kind, value: Any) -> None:
        match kind:
            case Named() if isinstance(value, dict):
                structure = installed().kinds.structure(kind)
                seen = self.seen.setdefault(structure.name, set())
                for name, member in value.items():
                    if member not in (None, [], {}):
                        seen.add(name)
                        if name in structure.fields:
                            self._look(structure.fields[name].kind, member)
            case Page(item=item) if isinstance(value, dict):
                self._look(Rows(item), value.get("data"))
            case Rows(item=item) if isinstance(value, list):
                for row in value:
                    self._look(item, row)
            case Either(options=options):
                for option in options:
                    self._look(option, value)


def _names(form: Form, where: str = "") -> Iterator[str]:
    """`lines[][amount]` of a form: every name, with places of arrays left out."""
    if isinstance(form, dict):
        for name, value in form.items():
            part = "" if name.isdecimal() else name
            inner = f"{where}[{part}]" if where else part
            yield inner
            yield from _names(value, inner)


def _taken(parameter: Any, where: str) -> Iterator[str]:
    """The names a parameter of the sandbox can be sent by."""
    yield where
    if isinstance(parameter, params.Shape):
        for name, inner in parameter.fields.items():
            yield from _taken(inner, f"{where}[{name}]")
    elif isinstance(parameter, params.Rows):
        yield from _taken(parameter.item, f"{where}[]")


def report(exchanges: Iterable[Exchange]) -> list[str]:
    """Lines of what was never tried, by kind."""
    tried = Tried()
    for exchange in exchanges:
        tried.add(exchange)
    simulated = dict(_simulated())
    calls = [call for call in simulated if call not in tried.calls]
    sent = [
        f"{call}: {name}"
        for call, takes in simulated.items()
        for top, parameter in takes.fields.items()
        for name in _taken(parameter, top)
        if (call, name) not in tried.sent
    ]
    members = [
        f"{name}: {', '.join(sorted(missing))}"
        for name, missing in sorted(_never_seen(tried).items())
    ]
    others = [each for each in installed().operations if str(each) not in simulated]
    return [
        *_section("simulated calls that were never answered well", calls),
        *_section("parameters taken that nobody sent", sent),
        *_section("members never seen with a value", members),
        *_section(
            "parameters of Stripe's refused as unknown",
            [f"{call}: {name}" for call, name in sorted(tried.refused)],
        ),
        f"{len(simulated)} calls are simulated, {len(others)} of Stripe's are not",
    ]


def _simulated() -> Iterator[tuple[str, params.Takes]]:
    for endpoint in ENDPOINTS:
        operation: Operation | None = installed().operations.find(endpoint.method, endpoint.path)
        if operation is not None:
            yield str(operation), endpoint.takes


def _never_seen(tried: Tried) -> dict[str, set[str]]:
    """Members by class, of the classes that the simulated calls answer with."""
    found: dict[str, set[str]] = {}
    for endpoint in ENDPOINTS:
        operation = installed().operations.find(endpoint.method, endpoint.path)
        kind = installed().operations.answer(operation) if operation else None
        named = kind.item if isinstance(kind, Page) else kind
        if isinstance(named, Named):
            structure = installed().kinds.structure(named)
            seen = tried.seen.get(structure.name, set())
            found[structure.name] = set(structure.fields) - seen - {"deleted"}
    return {name: missing for name, missing in found.items() if missing}


def _section(title: str, lines: list[str]) -> list[str]:
    return [f"{title}: {len(lines)}", *(f"  {line}" for line in lines), ""]


def read(records: Iterable[Path]) -> Iterator[Exchange]:
    """The exchanges in these records."""
    for record in records:
        for line in record.read_text().splitlines():
            said = json.loads(line)
            if "event" not in said:
                yield Exchange(**said)


def main(arguments: list[str]) -> int:
    """Print the report; the suite's exit status, 0 where none was run."""
    if arguments:
        sys.stdout.write("\n".join(report(read(map(Path, arguments)))) + "\n")
        return 0
    with tempfile.TemporaryDirectory(prefix="mp-coverage-") as folder:
        command = (sys.executable, "-m", "pytest", "-q", SUITE, "--basetemp", f"{folder}/base")
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
        records = sorted(Path(folder).rglob(f"*{SUFFIX}"))
        sys.stdout.write("\n".join(report(read(records))) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
