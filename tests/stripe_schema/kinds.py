"""Annotations of the installed package as a small algebra of types.

`Union[Literal['a', 'b'], str]` is how Stripe writes an enumeration that may grow; it is read as
closed here. `Literal['']` beside a type says that an empty string unsets the parameter.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

from tests.stripe_schema.sources import Source, Sources


class Scalar(Enum):
    """A single value of the wire."""

    TEXT = "text"
    WHOLE = "whole number"
    NUMBER = "number"
    DECIMAL = "plain decimal of at most 12 places"
    FLAG = "boolean"
    ANYTHING = "anything"


@dataclass(frozen=True, slots=True)
class OneOf:
    """An enumeration."""

    values: frozenset[object]


@dataclass(frozen=True, slots=True)
class Rows:
    """An array."""

    item: "Kind"


@dataclass(frozen=True, slots=True)
class Mapped:
    """An object with keys of the caller's choice, as metadata."""

    value: "Kind"


@dataclass(frozen=True, slots=True)
class Either:
    """Any of several kinds."""

    options: tuple["Kind", ...]


@dataclass(frozen=True, slots=True)
class Named:
    """A class of the package by module and path of class names; its fields are read when asked."""

    module: str
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A list object or search result of these items; `of` is its class."""

    of: Named
    item: "Kind"


Kind: TypeAlias = Scalar | OneOf | Rows | Mapped | Either | Named | Page

UNSET = OneOf(frozenset({""}))


@dataclass(frozen=True, slots=True)
class Field:
    """One member of a class and whether it must be there."""

    kind: Kind
    required: bool


@dataclass(frozen=True, slots=True)
class Structure:
    """The members of a class by name."""

    name: str
    fields: dict[str, Field]


_SCALARS = {
    "str": Scalar.TEXT,
    "int": Scalar.WHOLE,
    "float": Scalar.NUMBER,
    "Decimal": Scalar.DECIMAL,
    "bool": Scalar.FLAG,
    "Any": Scalar.ANYTHING,
    "object": Scalar.ANYTHING,
    "T": Scalar.ANYTHING,  # the item of a page, known from where the page stands
}
_MAPS = {"Dict", "Mapping", "UntypedStripeObject"}
_PAGES = {"ListObject", "SearchResultObject"}
# Bases whose members are the package's own machinery or the options of a request.
_NO_RESOURCES = {"stripe._stripe_object", "stripe._request_options"}
_MAY_BE_ABSENT = {"NotRequired", "Optional"}


class Kinds:
    """Reads annotations in the scope of the class that holds them."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self._structures: dict[Named, Structure] = {}

    def structure(self, named: Named) -> Structure:
        """The fields of a class, its own after those of its bases."""
        if named not in self._structures:
            node = self._class(named)
            fields = dict(self._fields(named, node))
            self._structures[named] = Structure(".".join(named.path), fields)
        return self._structures[named]

    def object_name(self, named: Named) -> str | None:
        """What objects of a class call themselves, `list`; None if they do not."""
        said = _assigned(self._class(named), "OBJECT_NAME")
        return None if said is None else str(said)

    def read(self, annotation: ast.expr, module: str, path: tuple[str, ...] = ()) -> Kind:
        """The kind an annotation means where it stands."""
        match annotation:
            case ast.Constant(value=str(text)):
                return self.read(ast.parse(text, mode="eval").body, module, path)
            case ast.Constant(value=None):
                return OneOf(frozenset({None}))
            case ast.Name(id=name):
                return _SCALARS[name] if name in _SCALARS else self._named(name, module, path)
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return _either([self.read(left, module, path), self.read(right, module, path)])
            case ast.Subscript(value=ast.Name(id=name), slice=inner):
                return self._subscript(name, inner, module, path)
        raise TypeError(f"{module}: {ast.unparse(annotation)} is not understood")

    def _subscript(self, name: str, inner: ast.expr, module: str, path: tuple[str, ...]) -> Kind:
        parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        if name == "Literal":
            return OneOf(frozenset(ast.literal_eval(part) for part in parts))
        kinds = [self.read(part, module, path) for part in parts]
        if name == "Union":
            return _either(kinds)
        if name == "ExpandableField":
            return _either([Scalar.TEXT, *kinds])
        if name == "List":
            return Rows(kinds[0])
        if name in _MAPS:
            return Mapped(kinds[-1])
        if name in _PAGES:
            of = self._named(name, module, path)
            return Page(of, kinds[0])
        if name in _MAY_BE_ABSENT:
            return kinds[0]
        raise TypeError(f"{module}: {name}[{ast.unparse(inner)}] is not understood")

    def _named(self, name: str, module: str, path: tuple[str, ...]) -> Named:
        for depth in range(len(path), 0, -1):  # innermost class first
            if name in _inner(self._class(Named(module, path[:depth]))):
                return Named(module, (*path[:depth], name))
        found = self.sources.find(module, name)
        if found is None:
            raise TypeError(f"{module}: {name} is not found")
        return Named(found[0], (found[1],))

    def _class(self, named: Named) -> ast.ClassDef:
        source = self.sources.module(named.module)
        node = source.classes[named.path[0]]
        for name in named.path[1:]:
            node = _inner(node)[name]
        return node

    def _fields(self, named: Named, node: ast.ClassDef) -> Iterator[tuple[str, Field]]:
        source = self.sources.module(named.module)
        for base in node.bases:
            if isinstance(base, ast.Name) and base.id in source.calls:
                yield from self._fields_of_call(source, source.calls[base.id])
            elif isinstance(base, ast.Name):
                found = self.sources.find(named.module, base.id)
                if found is not None and found[0] not in _NO_RESOURCES:
                    of = Named(found[0], (found[1],))
                    yield from self._fields(of, self._class(of))
        renamed = _assigned(node, "_field_remappings") or {}  # `from_` in Python is `from` outside
        for each in node.body:
            if not isinstance(each, ast.AnnAssign) or not isinstance(each.target, ast.Name):
                continue
            name = each.target.id
            if name.startswith("_") or ast.unparse(each.annotation).startswith("ClassVar"):
                continue
            yield renamed.get(name, name), self._field(each.annotation, named.module, named.path)

    def _fields_of_call(self, source: Source, call: ast.Call) -> Iterator[tuple[str, Field]]:
        members = call.args[1]
        if not isinstance(members, ast.Dict):
            raise TypeError(f"{source.name}: {ast.unparse(call)} is not understood")
        for key, value in zip(members.keys, members.values, strict=True):
            if isinstance(key, ast.Constant):
                yield str(key.value), self._field(value, source.name, ())

    def _field(self, annotation: ast.expr, module: str, path: tuple[str, ...]) -> Field:
        match annotation:
            case ast.Subscript(value=ast.Name(id=name)) if name in _MAY_BE_ABSENT:
                return Field(self.read(annotation, module, path), required=False)
        return Field(self.read(annotation, module, path), required=True)


def _inner(node: ast.ClassDef) -> dict[str, ast.ClassDef]:
    return {each.name: each for each in node.body if isinstance(each, ast.ClassDef)}


def _assigned(node: ast.ClassDef, name: str) -> Any:
    """The constant that a class assigns to a name; None if it does not."""
    for each in node.body:
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
            targets, value = [each.target.id], each.value
        elif isinstance(each, ast.Assign):
            targets = [target.id for target in each.targets if isinstance(target, ast.Name)]
            value = each.value
        else:
            continue
        if name in targets and value is not None:
            return ast.literal_eval(value)
    return None


def _either(kinds: list[Kind]) -> Kind:
    options: list[Kind] = []
    for kind in kinds:
        for option in kind.options if isinstance(kind, Either) else (kind,):
            if option not in options:
                options.append(option)
    if any(isinstance(option, OneOf) and option != UNSET for option in options):
        options = [option for option in options if option is not Scalar.TEXT]
    return options[0] if len(options) == 1 else Either(tuple(options))
