"""What was asked, held against the parameters of its call.

A form's values are texts, so a whole number is known by its digits. An empty text unsets a
parameter: it passes where Stripe's types say so, and for plain texts, where they are silent.
The decoding is not the sandbox's own: the judge does not read with the eyes of the judged.
"""

import json
import re
from typing import TypeAlias
from urllib.parse import parse_qsl

from tests.stripe_schema.answers import Answers
from tests.stripe_schema.kinds import (
    Either,
    Kind,
    Kinds,
    Mapped,
    Named,
    OneOf,
    Rows,
    Scalar,
    Structure,
)
from tests.stripe_schema.operations import Operation, Operations

Form: TypeAlias = "str | dict[str, Form]"

UNKNOWN = " is unknown"

_SCALARS = {
    Scalar.TEXT: re.compile(r".*", re.DOTALL),
    Scalar.ANYTHING: re.compile(r".*", re.DOTALL),
    Scalar.WHOLE: re.compile(r"-?[0-9]+"),
    Scalar.NUMBER: re.compile(r"-?[0-9]+(\.[0-9]+)?"),
    Scalar.DECIMAL: re.compile(r"-?[0-9]+(\.[0-9]{1,12})?"),
    Scalar.FLAG: re.compile(r"true|false"),
}


def decode(text: str) -> dict[str, Form]:
    """The nested form of `a[b][0]=v&c=w`; arrays are objects with decimal names."""
    root: dict[str, Form] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        first, *rest = [part.removesuffix("]") for part in name.split("[")]
        node, parts = root, [first, *rest]
        for part in parts[:-1]:
            child = node.setdefault(part or str(len(node)), {})
            if isinstance(child, str):
                child = {}
            node = child
        node[parts[-1] or str(len(node))] = value
    return root


class Requests:
    """The judge of requests."""

    def __init__(self, kinds: Kinds, operations: Operations, answers: Answers) -> None:
        self._kinds = kinds
        self._operations = operations
        self._answers = answers

    def complaints(self, operation: Operation, query: str, body: str) -> list[str]:
        """What Stripe would not take: unknown, missing and mistyped parameters by name."""
        named = self._operations.parameters(operation)
        if operation.is_json and operation.method == "POST":
            sent = json.loads(body) if body else {}
            return self._answers.of_kind(named, sent) if named else _unknown(sent, "")
        form = decode("&".join(part for part in (query, body) if part))
        if named is None:
            return _unknown(form, "")
        return self._structure(self._kinds.structure(named), form, "")

    def _structure(self, structure: Structure, form: dict[str, Form], where: str) -> list[str]:
        known = structure.fields
        found = _unknown([name for name in form if name not in known], where)
        for name, field in known.items():
            place = _inside(where, name)
            if name in form:
                found += self._value(field.kind, form[name], place)
            elif field.required:
                found.append(f"{place} is missing")
        return found

    def _value(self, kind: Kind, value: Form, where: str) -> list[str]:
        match kind, value:
            case Scalar(), str(text):
                fits = _SCALARS[kind].fullmatch(text)
                return [] if fits else [f"{where}: {text[:60]!r} is no {kind.value}"]
            case OneOf(values=values), str(text):
                is_one = text in {_on_the_wire(each) for each in values}
                return [] if is_one else [f"{where}: {text[:60]!r} is not one of Stripe's"]
            case Either(options=options), _:
                tried = [self._value(option, value, where) for option in options]
                return min(tried, key=lambda each: _badness(each, where))
            case Named(), dict(form):
                return self._structure(self._kinds.structure(kind), form, where)
            case Mapped(value=inner), dict(form):
                return [
                    each
                    for name, item in form.items()
                    for each in self._value(inner, item, _inside(where, name))
                ]
            case Rows(item=item), dict(form) if all(name.isdecimal() for name in form):
                return [
                    each
                    for name, row in form.items()
                    for each in self._value(item, row, _inside(where, name))
                ]
        return [f"{where} is no {_in_words(kind)}"]


def _unknown(names: "list[str] | dict[str, Form]", where: str) -> list[str]:
    return [f"{_inside(where, name)}{UNKNOWN}" for name in names]


def _badness(found: list[str], where: str) -> tuple[int, int]:
    """Fewest complaints first; among equals, those that lie deeper understood more."""
    return len(found), sum(each.startswith((f"{where} ", f"{where}:")) for each in found)


def _inside(where: str, name: str) -> str:
    return f"{where}[{name}]" if where else name


def _on_the_wire(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _in_words(kind: Kind) -> str:
    match kind:
        case Scalar():
            return kind.value
        case OneOf():
            return "single value"
        case Rows():
            return "array"
    return "object"
