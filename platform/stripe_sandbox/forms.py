"""Stripe's form encoding: `a[b][0][c]=v` pairs in, one nested mapping of strings out.

Arrays stay mappings with decimal keys here, because `metadata[0]=x` is a legitimate map: only the
parameter's declaration knows which it is. An empty string survives: it means "unset".
"""

import re
from typing import TypeAlias
from urllib.parse import parse_qsl

from stripe_sandbox.errors import StripeError, refused

MAX_PAIRS = 20_000  # 250 lines x (50 metadata pairs + 10 fields) = 15,000, and room
MAX_DEPTH = 6  # lines[0][metadata][key] is 4

Raw: TypeAlias = "str | dict[str, Raw]"

_KEY = re.compile(r"^([^\[\]]+)((?:\[[^\[\]]*\])*)$")
_PART = re.compile(r"\[([^\[\]]*)\]")


def decode(text: str) -> dict[str, Raw]:
    """Nested form of a body or query string; 400 for malformed names. A repeated name wins last."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_PAIRS)
    except ValueError as too_many:
        raise refused(f"Invalid request: more than {MAX_PAIRS} parameters.") from too_many
    root: dict[str, Raw] = {}
    for name, value in pairs:
        _place(root, _split(name), name, value)
    return root


def flat(text: str) -> list[tuple[str, str]]:
    """The pairs in a canonical order, for comparing two requests."""
    return sorted(parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_PAIRS))


def _split(name: str) -> list[str]:
    match = _KEY.match(name)
    if match is None:
        raise _malformed(name)
    parts = [match[1], *_PART.findall(match[2])]
    if len(parts) > MAX_DEPTH:
        raise _malformed(name)
    return parts


def _place(root: dict[str, Raw], parts: list[str], name: str, value: str) -> None:
    node = root
    for depth, part in enumerate(parts):
        # `expand[]=a&expand[]=b` counts up; `expand[0]=a` says its place itself.
        key = part if part or depth == 0 else str(len(node))
        if depth == len(parts) - 1:
            if isinstance(node.get(key), dict):
                raise _malformed(name)
            node[key] = value
            return
        child = node.setdefault(key, {})
        if isinstance(child, str):
            raise _malformed(name)
        node = child


def _malformed(name: str) -> StripeError:
    return refused(f"Invalid parameter name: {name[:100]}", param=name[:100])
