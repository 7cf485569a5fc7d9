"""`manage.py calc`: one question a line on standard input, one answer a line on standard output.

Guarantees: as many lines come out as went in, in their order, and none stops the next. What has
been read is answered before more is waited for, so a program may ask one question and read its
answer; a file of millions takes the memory of one line.

Does not know Django: it starts in the time of a Python, with no installation and no server.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from billing.calculator.answer import answer, error
from meterplane.kernel.errors import CallerError
from meterplane.metering.external.exact_json import decode

LINE_BYTES_MAX = 1024 * 1024  # 10,000 credit grants of 100 bytes
CHUNK_BYTES = 64 * 1024

_encode = msgspec.json.Encoder().encode


def run(arguments: Sequence[str]) -> int:
    """Answer standard input until it ends; the exit status."""
    argparse.ArgumentParser(
        prog="manage.py calc", description="Answer one JSON question a line, from standard input."
    ).parse_args(arguments)
    chunks = iter(lambda: os.read(sys.stdin.fileno(), CHUNK_BYTES), b"")
    sink = sys.stdout.buffer
    try:
        for answers in answered(chunks):
            sink.write(answers)
            sink.flush()
    except BrokenPipeError:  # whoever read has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return 130
    return 0


def answered(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The answers to the lines that end in each chunk, and at last to one without a line end."""
    begun = bytearray()  # of a line that has not ended; no more than its bound
    too_long = False
    for chunk in chunks:
        *ended, rest = chunk.split(b"\n")
        answers = []
        for part in ended:
            too_long = too_long or len(begun) + len(part) > LINE_BYTES_MAX
            answers.append(_TOO_LONG if too_long else line_answer(bytes(begun) + part))
            begun.clear()
            too_long = False
        if too_long or len(begun) + len(rest) > LINE_BYTES_MAX:
            too_long = True
            begun.clear()
        else:
            begun += rest
        if answers:
            yield b"".join(answers)
    if too_long or begun:
        yield _TOO_LONG if too_long else line_answer(bytes(begun))


def line_answer(line: bytes) -> bytes:
    """The answer to one line, with its line end."""
    try:
        question = decode(line)
    except ValueError as wrong:
        if not line.strip():
            return _EMPTY
        message = str(wrong).replace("The body", "The line")
        return _refusal("json_invalid", message)
    return _encode(answer(question)) + b"\n"


def _refusal(code: str, message: str) -> bytes:
    return _encode(error(CallerError(code, message))) + b"\n"


_EMPTY = _refusal("line_empty", "The line is empty; send a JSON object.")
_TOO_LONG = _refusal(
    "line_too_long", f"The line is longer than {LINE_BYTES_MAX // 1024**2} MiB; it was not read."
)
