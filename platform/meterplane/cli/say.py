"""What the command says, and how it ends.

Answers go to stdout and nothing else does, so that they can be piped. Exit codes: 0 done; 1 the
answer is no (a receipt that is not valid, events that were not taken); 2 it could not be done.
What came from elsewhere is shown without control characters: a terminal acts upon them.
"""

import csv
import io
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

NO, FAILED = 1, 2

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def fail(message: str, code: int = FAILED) -> NoReturn:
    """Say in a sentence why it was not done, and end."""
    err.print(Text(f"meterplane: {shown(message)}", "red"), soft_wrap=True)
    raise typer.Exit(code)


def shown(value: object) -> str:
    """A value as a terminal may have it; nothing where there is none."""
    text = "" if value is None else str(value)
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


def raw(content: bytes) -> None:
    """Bytes as they came."""
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def table(names: Sequence[str], rows: Iterable[Sequence[object]], numbers: Iterable[str]) -> None:
    """A table for people; columns named in `numbers` stand on the right."""
    drawn = Table(box=None, header_style="bold", pad_edge=False)
    right = set(numbers)
    for name in names:
        drawn.add_column(
            name, justify="right" if name in right else "left", no_wrap=True, overflow="fold"
        )
    for row in rows:
        drawn.add_row(*(Text(shown(value)) for value in row))
    if out.is_terminal:
        out.print(drawn)
    else:  # a file or a pipe has no width to fit into
        Console(highlight=False, width=10_000, file=out.file).print(drawn)


def comma_separated(names: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """CSV for programs. A text that a spreadsheet would run as a formula is quoted for it."""
    content = io.StringIO(newline="")
    writer = csv.writer(content)
    writer.writerow(names)
    writer.writerows([_cell(value) for value in row] for row in rows)
    raw(content.getvalue().encode())


def _cell(value: object) -> Any:
    text = "" if value is None else str(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
