"""What a request is for, in its caller's own words: names and values its usage is told apart by.

    x-meterplane-tags: team=search, feature=rerank

A list of `name=value`, separated by commas. A name is `[a-z0-9][a-z0-9_.-]{0,63}`, upper case read
as lower; a value is 1 to 256 characters of text, percent-encoded where they are no visible ASCII,
or are a comma or a percent sign. Over gRPC it is metadata of the same name. Surfaces of OpenAI take
`metadata` of the body as well, its names as OpenAI bounds them; of two of one name the header's
counts. At most 16 together.

Guarantees: what cannot be kept whole is refused before anything is admitted. OpenAI stores values
of up to 512 characters; one that was cut to 256 would book its cost on a name nobody gave, and two
that differ behind it as one. So a longer one is refused, too.
"""

import re
from collections.abc import Mapping

from meterplane.contracts.tag_text import is_name, is_printable
from meterplane.contracts.usage import TAG_NAME_CHARS_MAX, TAG_VALUE_CHARS_MAX, TAGS_MAX
from meterplane.kernel.errors import CallerError

HEADER = b"x-meterplane-tags"
FIELD = "x-meterplane-tags"
NONE: dict[str, str] = {}  # of most requests; nobody writes to it

_NAME = re.compile(rb"[a-z0-9][a-z0-9_.-]{0,63}")
_VALUE = re.compile(rb"(?:[ -$&-~]|%[0-9A-Fa-f]{2})+")  # visible ASCII; "%" begins an escape only
_ESCAPE = re.compile(rb"%(..)")


def tags_of(header: bytes | None, metadata: Mapping[str, str] | None) -> dict[str, str]:
    """A request's tags. Raises `CallerError` 400 naming the entry."""
    if header is None and not metadata:
        return NONE
    tags = _of_metadata(metadata) if metadata else {}
    if header is not None:
        tags |= _of_header(header)
    if len(tags) > TAGS_MAX:
        raise _invalid(f"A request has at most {TAGS_MAX} tags; these are {len(tags)}", FIELD)
    return tags


def _of_header(header: bytes) -> dict[str, str]:
    tags: dict[str, str] = {}
    entries = [entry for entry in map(bytes.strip, header.split(b",")) if entry]
    if len(entries) > TAGS_MAX:
        raise _invalid(
            f"{FIELD} has {len(entries)} entries; a request has at most {TAGS_MAX} tags", FIELD
        )
    for number, entry in enumerate(entries, 1):
        where = f"{FIELD}, entry {number}"
        written, equals, value = entry.partition(b"=")
        name = written.lower()
        if not equals or not _NAME.fullmatch(name):
            raise _invalid(
                f"{where}: write name=value, the name 1 to {TAG_NAME_CHARS_MAX} of a-z, 0-9, '_',"
                " '.' and '-', the first a letter or digit",
                FIELD,
            )
        tag = name.decode()
        if tag in tags:
            raise _invalid(f"{where}: {tag!r} is there twice; name it once", FIELD)
        tags[tag] = _decoded(value, where)
    return tags


def _decoded(value: bytes, where: str) -> str:
    if not _VALUE.fullmatch(value):
        raise _invalid(
            f"{where}: the value is empty, or not percent-encoded where it is no visible ASCII",
            FIELD,
        )
    try:
        text = _ESCAPE.sub(lambda digits: bytes.fromhex(digits[1].decode()), value).decode()
    except UnicodeDecodeError:
        raise _invalid(f"{where}: the value is not UTF-8 when decoded", FIELD) from None
    _check_value(text, where, FIELD)
    return text


def _of_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    if len(metadata) > TAGS_MAX:
        raise _invalid(
            f"metadata has {len(metadata)} entries; a request has at most {TAGS_MAX}", "metadata"
        )
    for name, value in metadata.items():
        if not is_name(name):
            raise _invalid(
                f"metadata: a name has 1 to {TAG_NAME_CHARS_MAX} characters, none of them a control"
                " character",
                "metadata",
            )
        _check_value(value, f"metadata.{name}", f"metadata.{name}")
    return dict(metadata)


def _check_value(text: str, where: str, field: str) -> None:
    if len(text) > TAG_VALUE_CHARS_MAX:
        raise _invalid(
            f"{where}: the value has {len(text)} characters; usage is told apart by at most"
            f" {TAG_VALUE_CHARS_MAX}. Send a shorter one",
            field,
        )
    if not is_printable(text):
        raise _invalid(f"{where}: the value holds a control character; leave it out", field)


def _invalid(sentence: str, field: str) -> CallerError:
    return CallerError("invalid_tags", f"{sentence}.", field=field)
