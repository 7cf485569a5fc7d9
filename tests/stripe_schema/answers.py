"""What was answered, held against the class of the call's result.

A member must be there and not null unless its type is `Optional`, and nothing may be there that
the class does not have. An event is looked into: the object it carries has its own class, and
`previous_attributes` may name members of that class only.
"""

import re
from collections.abc import Mapping
from typing import Any

from stripe._object_classes import OBJECT_CLASSES
from stripe._stripe_object import StripeObject
from stripe.events._event_classes import get_v2_event_class

from tests.stripe_schema.kinds import (
    Either,
    Field,
    Kind,
    Kinds,
    Mapped,
    Named,
    OneOf,
    Page,
    Rows,
    Scalar,
    Structure,
)
from tests.stripe_schema.operations import Operation, Operations

ERROR = Named("stripe._error_object", ("ErrorObject",))
EVENT = Named("stripe._event", ("Event",))
THIN_EVENT = Named("stripe.v2.core._event", ("Event",))
ERROR_TYPES = {"api_error", "card_error", "idempotency_error", "invalid_request_error"}
# Where the package lists the codes of errors.
_CODES = Named("stripe._payment_intent", ("PaymentIntent", "LastPaymentError"))
_DECIMAL = re.compile(r"-?[0-9]+(\.[0-9]{1,12})?")
_WORDS = {Rows: "array", Mapped: "object", Page: "list object", Named: "object"}
_GONE = ("id", "object", "deleted")
# What Stripe's reference shows of search results and their class leaves out; the page after the
# last one is null.
_SEARCH = {"url": Scalar.TEXT, "total_count": Scalar.WHOLE, "next_page": Scalar.TEXT}


class Answers:
    """The judge of answers."""

    def __init__(self, kinds: Kinds, operations: Operations) -> None:
        self._kinds = kinds
        self._operations = operations

    def complaints(self, operation: Operation, status: int, body: Any) -> list[str]:
        """What Stripe would not say to this call."""
        if status >= 400:
            return self.of_error(body)
        return self.of_kind(self._operations.answer(operation), body, "")

    def of_error(self, body: Any) -> list[str]:
        """The shape of an answer of 400 and above, with its code one that exists."""
        if not isinstance(body, dict) or set(body) != {"error"}:
            return ["an error's body is {'error': {...}}"]
        error = body["error"]
        found = self.of_kind(ERROR, error, "error")
        if isinstance(error, dict):
            if error.get("type") not in ERROR_TYPES:
                found.append(f"error.type: {error.get('type')!r} is not one of Stripe's")
            if "code" in error and error["code"] not in self._error_codes():
                found.append(f"error.code: {error['code']!r} is not one of Stripe's")
        return found

    def of_event(self, event: Any) -> list[str]:
        """An event as delivered: with its object, or thin with a reference to it."""
        is_thin = isinstance(event, dict) and event.get("object") == "v2.core.event"
        return self.of_kind(THIN_EVENT if is_thin else EVENT, event, "")

    def of_kind(self, kind: Kind, value: Any, where: str) -> list[str]:
        """Complaints about a value, each beginning with its place."""
        match kind:
            case Scalar():
                fits = _is_scalar(kind, value)
                return [] if fits else [f"{where}: {_short(value)} is no {kind.value}"]
            case OneOf(values=values):
                # 1 is not True here.
                fits = any(type(value) is type(each) and value == each for each in values)
                return [] if fits else [f"{where}: {_short(value)} is not one of Stripe's"]
            case Either(options=options):
                return self._either(options, value, where)
            case Rows(item=item) if isinstance(value, list):
                return self._rows(item, value, where)
            case Mapped(value=inner) if isinstance(value, dict):
                return [
                    each
                    for name, member in value.items()
                    for each in self.of_kind(inner, member, _inside(where, name))
                ]
            case Page() if isinstance(value, dict):
                return self._page(kind, value, where)
            case Named() if isinstance(value, dict):
                if kind == THIN_EVENT:
                    return self._thin(value, where)
                found = self._structure(self._kinds.structure(kind), value, where)
                return found + self._carried(value, where) if kind == EVENT else found
        return [f"{where or 'the answer'}: {_short(value)} is no {_WORDS[type(kind)]}"]

    def _rows(self, item: Kind, rows: list[Any], where: str) -> list[str]:
        return [
            each
            for place, row in enumerate(rows)
            for each in self.of_kind(item, row, f"{where}[{place}]")
        ]

    def _either(self, options: tuple[Kind, ...], value: Any, where: str) -> list[str]:
        best: list[str] | None = None
        for option in options:
            if isinstance(option, Scalar) and isinstance(value, (dict, list)):
                continue  # an object where an id could stand is judged as the object
            found = self.of_kind(option, value, where)
            if not found:
                return []
            if best is None or len(found) < len(best):
                best = found
        return best if best is not None else [f"{where}: {_short(value)} is of no known kind"]

    def _page(self, page: Page, value: Mapping[str, Any], where: str) -> list[str]:
        envelope = dict(self._kinds.structure(page.of).fields)
        name = self._kinds.object_name(page.of)
        if name is not None:
            envelope["object"] = Field(OneOf(frozenset({name})), required=True)
        if name == "search_result":
            envelope |= {each: Field(kind, required=False) for each, kind in _SEARCH.items()}
        envelope["data"] = Field(Rows(page.item), required=True)
        return self._structure(Structure("page", envelope), value, where)

    def _structure(self, structure: Structure, value: Mapping[str, Any], where: str) -> list[str]:
        is_gone = value.get("deleted") is True and "deleted" in structure.fields
        found = []
        for name, member in value.items():
            place = _inside(where, name)
            field = structure.fields.get(name)
            if field is None or (is_gone and name not in _GONE):
                found.append(f"{place} is not Stripe's")
            elif member is not None:
                found += self.of_kind(field.kind, member, place)
            elif field.required:
                found.append(f"{place} is null")
        for name, field in structure.fields.items():
            if name not in value and field.required and (not is_gone or name in _GONE):
                found.append(f"{_inside(where, name)} is absent")
        return found

    def _carried(self, event: Mapping[str, Any], where: str) -> list[str]:
        data = event.get("data")
        carried = data.get("object") if isinstance(data, dict) else None
        place = _inside(where, "data.object")
        if not isinstance(data, dict) or not isinstance(carried, dict):
            return [f"{place} is absent"]
        of = OBJECT_CLASSES.get(str(carried.get("object")))
        if of is None:
            return [f"{place}.object: {_short(carried.get('object'))} is not one of Stripe's"]
        kind = Named(of[0], (of[1],))
        found = self.of_kind(kind, carried, place)
        members = self._kinds.structure(kind).fields
        return found + [
            f"{_inside(where, 'data.previous_attributes')}.{name} is not Stripe's"
            for name in data.get("previous_attributes") or {}
            if name not in members
        ]

    def _thin(self, event: Mapping[str, Any], where: str) -> list[str]:
        """Every type of thin event has a class of its own, which says what it refers to."""
        of = get_v2_event_class(str(event.get("type")))
        if of is StripeObject:
            return [f"{_inside(where, 'type')}: {_short(event.get('type'))} is not one of Stripe's"]
        kind = Named(of.__module__, (of.__qualname__,))
        return self._structure(self._kinds.structure(kind), event, where)

    def _error_codes(self) -> frozenset[object]:
        kind = self._kinds.structure(_CODES).fields["code"].kind
        return kind.values if isinstance(kind, OneOf) else frozenset()


def _is_scalar(kind: Scalar, value: Any) -> bool:
    match kind:
        case Scalar.ANYTHING:
            return True
        case Scalar.TEXT:
            return isinstance(value, str)
        case Scalar.FLAG:
            return isinstance(value, bool)
        case Scalar.DECIMAL:  # decimals travel as strings
            return isinstance(value, str) and _DECIMAL.fullmatch(value) is not None
        case Scalar.WHOLE:
            return isinstance(value, int) and not isinstance(value, bool)
        case Scalar.NUMBER:
            return isinstance(value, int | float) and not isinstance(value, bool)


def _inside(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _short(value: Any) -> str:
    return repr(value)[:80]
