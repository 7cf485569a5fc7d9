"""What the text of a tag may be. Its bounds are beside the frames that carry it: `usage.py`."""

import unicodedata

from meterplane.contracts.usage import TAG_NAME_CHARS_MAX, TAG_VALUE_CHARS_MAX

# Line and paragraph ends, controls, halves of characters: they are no part of a name on a bill.
_UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})


def is_name(text: str) -> bool:
    """A name as OpenAI bounds those of `metadata`."""
    return 0 < len(text) <= TAG_NAME_CHARS_MAX and is_printable(text)


def is_value(text: str) -> bool:
    """A value that can be kept whole."""
    return len(text) <= TAG_VALUE_CHARS_MAX and is_printable(text)


def is_printable(text: str) -> bool:
    """Text without anything that a screen, a CSV file or a log would act upon."""
    return text.isprintable() or _UNPRINTABLE.isdisjoint(map(unicodedata.category, text))
