"""What was answered, held against the class of the call's result.

A member must be there and not null unless its type is `Optional`, and nothing may be there that
the class does not have. An event is looked into: the object it carries has its own class, and
`previous_attributes` may name members of that class only.
"""

import re
from collections.abc import Callable, Mapping
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
# Codes of errors that Stripe documents and its package does not list.
_DOCUMENTED = {"payment_method_types_no_longer_supported"}
_DECIMAL = re.compile(r"-?[0-9]+(\.[0-9]{1,12})?")
_WORDS = {Rows: "array", Mapped: "object", Page: "list object", Named: "object"}
NOT_LISTED = "is not one of Stripe's"
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
        return _whole(self.of_kind(self._operations.answer(operation), body))

    def of_error(self, body: Any) -> list[str]:
        """The shape of an answer of 400 and above, with its code one that exists."""
        if not isinstance(body, dict) or set(body) != {"error"}:
            return ["an error's body is {'error': {...}}"]
        error = body["error"]
        found = _at("error", self.of_kind(ERROR, error))
        if isinstance(error, dict):
            if error.get("type") not in ERROR_TYPES:
                found.append(f"error.type: {error.get('type')!r} is not one of Stripe's")
            if "code" in error and error["code"] not in self._error_codes() | _DOCUMENTED:
                found.append(f"error.code: {error['code']!r} is not one of Stripe's")
        return found

    def of_event(self, event: Any) -> list[str]:
        """An event as delivered: with its object, or thin with a reference to it."""
        is_thin = isinstance(event, dict) and event.get("object") == "v2.core.event"
        return _whole(self.of_kind(THIN_EVENT if is_thin else EVENT, event))

    def of_kind(self, kind: Kind, value: Any) -> list[str]:
        """Complaints about a value, each beginning with its place inside of it."""
        match kind:
            case Scalar():
                fits = _is_scalar(kind, value)
                return [] if fits else [f": {_short(value)} is no {kind.value}"]
            case OneOf(values=values):
                return [] if _is_one_of(values, value) else [f": {_short(value)} {NOT_LISTED}"]
            case Either(options=options):
                return self._either(options, value)
            case Rows(item=item) if isinstance(value, list):
                return [
                    each
                    for place, row in enumerate(value)
                    for each in _at(f"[{place}]", self.of_kind(item, row))
                ]
            case Mapped(value=inner) if isinstance(value, dict):
                return [
                    each
                    for name, member in value.items()
                    for each in _at(name, self.of_kind(inner, member))
                ]
            case Page() if isinstance(value, dict):
                return self._page(kind, value)
            case Named() if isinstance(value, dict):
                return self._named(kind, value)
        return [f": {_short(value)} is no {_WORDS[type(kind)]}"]

    def _named(self, kind: Named, value: Mapping[str, Any]) -> list[str]:
        if kind == THIN_EVENT:
            return self._thin(value)
        found = _members(self._kinds.structure(kind), value, self.of_kind)
        return found + self._carried(value) if kind == EVENT else found

    def _either(self, options: tuple[Kind, ...], value: Any) -> list[str]:
        best: list[str] | None = None
        for option in options:
            if isinstance(option, Scalar) and isinstance(value, (dict, list)):
                continue  # an object where an id could stand is judged as the object
            found = self.of_kind(option, value)
            if not found:
                return []
            if best is None or len(found) < len(best):
                best = found
        return best if best is not None else [f": {_short(value)} is of no known kind"]

    def _page(self, page: Page, value: Mapping[str, Any]) -> list[str]:
        envelope = dict(self._kinds.structure(page.of).fields)
        name = self._kinds.object_name(page.of)
        if name is not None:
            envelope["object"] = Field(OneOf(frozenset({name})), required=True)
        if name == "search_result":
            envelope |= {each: Field(kind, required=False) for each, kind in _SEARCH.items()}
        envelope["data"] = Field(Rows(page.item), required=True)
        return _members(Structure("page", envelope), value, self.of_kind)

    def _carried(self, event: Mapping[str, Any]) -> list[str]:
        """The object inside of an event, and what is said to have changed in it."""
        data = event.get("data")
        carried = data.get("object") if isinstance(data, dict) else None
        if not isinstance(data, dict) or not isinstance(carried, dict):
            return ["data.object is absent"]
        of = OBJECT_CLASSES.get(str(carried.get("object")))
        if of is None:
            return [f"data.object.object: {_short(carried.get('object'))} {NOT_LISTED}"]
        kind = Named(of[0], (of[1],))
        members = self._kinds.structure(kind).fields
        return _at("data.object", self.of_kind(kind, carried)) + [
            f"data.previous_attributes.{name} is not Stripe's"
            for name in data.get("previous_attributes") or {}
            if name not in members
        ]

    def _thin(self, event: Mapping[str, Any]) -> list[str]:
        """Every type of thin event has a class of its own, which says what it refers to."""
        of = get_v2_event_class(str(event.get("type")))
        if of is StripeObject:
            return [f"type: {_short(event.get('type'))} {NOT_LISTED}"]
        kind = Named(of.__module__, (of.__qualname__,))
        return _members(self._kinds.structure(kind), event, self.of_kind)

    def _error_codes(self) -> frozenset[object]:
        kind = self._kinds.structure(_CODES).fields["code"].kind
        return kind.values if isinstance(kind, OneOf) else frozenset()


def _members(
    structure: Structure,
    value: Mapping[str, Any],
    judge: Callable[[Kind, Any], list[str]],
) -> list[str]:
    is_gone = value.get("deleted") is True and "deleted" in structure.fields
    found: list[str] = []
    for name, member in value.items():
        field = structure.fields.get(name)
        if field is None or (is_gone and name not in _GONE):
            found.append(f"{name} is not Stripe's")
        elif member is not None:
            said = judge(field.kind, member)
            if said:
                found += _at(name, said)
        elif field.required:
            found.append(f"{name} is null")
    for name, field in structure.fields.items():
        if field.required and name not in value and (not is_gone or name in _GONE):
            found.append(f"{name} is absent")
    return found


def _is_one_of(values: frozenset[object], value: Any) -> bool:
    if isinstance(value, str):
        return value in values
    return any(type(value) is type(each) and value == each for each in values)  # 1 is not True


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


def _at(place: str, found: list[str]) -> list[str]:
    """The same complaints, seen from one level further out."""
    return [f"{place}{each}" if each[0] in ":[ " else f"{place}.{each}" for each in found]


def _whole(found: list[str]) -> list[str]:
    return [f"the answer{each}" if each[0] == ":" else each for each in found]


def _short(value: Any) -> str:
    return repr(value)[:80]
