"""`manage.py calc` as a program: lines in, lines out."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from billing.calculator import stream
from billing.calculator.stream import CHUNK_BYTES, LINE_BYTES_MAX, answered

ROOT = Path(__file__).resolve().parents[3]
COMMAND = [sys.executable, "manage.py", "calc"]
ROUND = b'{"op":"round","amount":"10.275","currency":"USD"}'
ROUNDED = b'{"amount":"10.28"}'
WITHIN_S = 60


@pytest.fixture
def calc():
    """The command, with nothing of an installation in its environment."""
    process = subprocess.Popen(
        COMMAND, cwd=ROOT, env={"PATH": os.environ["PATH"]}, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    yield process
    process.kill()
    process.communicate()


def test_a_question_is_answered_while_the_next_is_not_asked_yet(calc):
    for _ in range(2):
        calc.stdin.write(ROUND + b"\n")
        calc.stdin.flush()
        assert calc.stdout.readline() == ROUNDED + b"\n"
    told, complaints = calc.communicate(b"no JSON\n\n" + ROUND, WITHIN_S)
    bad, empty, last = told.splitlines()
    assert json.loads(bad)["error"]["code"] == "json_invalid"
    assert json.loads(empty)["error"]["code"] == "line_empty"
    assert last == ROUNDED, "a last line need not end"
    assert (calc.returncode, complaints) == (0, b"")


def test_a_reader_that_has_enough_is_no_error(calc):
    calc.stdout.close()
    calc.stdout = None
    _, complaints = calc.communicate((ROUND + b"\n") * 1000, WITHIN_S)
    assert (calc.returncode, complaints) == (0, b"")


def test_the_command_starts_without_django_or_the_clients_of_servers():
    code = (
        "import sys, billing.calculator.stream\n"
        "print({name.partition('.')[0] for name in sys.modules}"
        " & {'django', 'celery', 'psycopg', 'redis', 'rest_framework', 'pydantic', 'httpx'})"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert told.stdout.strip() == b"set()"


def chunks(size, text):
    for start in range(0, size, CHUNK_BYTES):
        yield text * min(CHUNK_BYTES, size - start)


def test_a_line_of_the_longest_is_read_and_a_longer_one_is_refused_without_being_kept():
    padding = LINE_BYTES_MAX - len(ROUND)
    longest = [*chunks(padding, b" "), ROUND + b"\n"]
    assert b"".join(answered(longest)) == ROUNDED + b"\n"

    def sent():
        yield from longest[:-1]
        yield b" " + ROUND + b"\n" + ROUND + b"\n"
        yield from chunks(64 * LINE_BYTES_MAX, b"x")
        yield b"\n" + ROUND

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told = [json.loads(line) for line in b"".join(answered(sent())).splitlines()]
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    codes = [each.get("error", {}).get("code", "") for each in told]
    assert codes == ["line_too_long", "", "line_too_long", ""]
    assert after - before < 16 * 1024, "KiB: the 64 MiB line was held"


def test_a_line_without_an_end_that_is_too_long_is_refused_at_the_end():
    told = b"".join(answered(chunks(2 * LINE_BYTES_MAX, b"x")))
    assert json.loads(told)["error"]["code"] == "line_too_long"


def test_windows_line_ends_and_spaces_around_a_question_are_fine():
    assert b"".join(answered([b"  " + ROUND + b" \r\n"])) == ROUNDED + b"\n"


def test_nothing_in_nothing_out():
    assert not list(answered([]))


def test_arguments_are_refused(capsys):
    with pytest.raises(SystemExit):
        stream.run(["--fast"])
    assert "unrecognized arguments" in capsys.readouterr().err
