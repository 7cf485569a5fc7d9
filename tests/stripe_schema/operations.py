"""Every call that the installed package can make: verb, path, parameters, answer.

Read from its services, whose methods each hold one `self._request(verb, path, ...)`; their
asynchronous twins make the same calls and are not looked at.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from tests.stripe_schema.kinds import Kind, Kinds, Named
from tests.stripe_schema.sources import Source, Sources

_SENDS = {"_request", "_request_stream"}
_PLACE = re.compile(r"\{[^{}]+\}")


@dataclass(frozen=True, slots=True)
class Operation:
    """One call; what it takes and answers stays unread until somebody asks for it."""

    method: str
    path: str
    service: str
    module: str
    takes: ast.expr | None
    returns: ast.expr

    @property
    def is_json(self) -> bool:
        """Whether its body is JSON rather than a form."""
        return self.path.startswith("/v2/")

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class Operations:
    """The table of all calls, read when first asked."""

    def __init__(self, sources: Sources, kinds: Kinds) -> None:
        self._sources = sources
        self._kinds = kinds
        self._kinds_read: dict[ast.expr, Kind] = {}
        self._table: dict[tuple[str, int], list[tuple[re.Pattern[str], Operation]]] | None = None

    def __iter__(self) -> Iterator[Operation]:
        for row in self._rows().values():
            yield from (operation for _, operation in row)

    def find(self, method: str, path: str) -> Operation | None:
        """The call that goes to this address; the one with the fewest placeholders wins."""
        for pattern, operation in self._rows().get((method, path.count("/")), ()):
            if pattern.fullmatch(unquote(path)):
                return operation
        return None

    def parameters(self, operation: Operation) -> Named | None:
        """What it takes; None where it takes nothing."""
        if operation.takes is None:
            return None
        kind = self._read(operation, operation.takes)
        return kind if isinstance(kind, Named) else None

    def answer(self, operation: Operation) -> Kind:
        """What it answers when all is well."""
        return self._read(operation, operation.returns)

    def _read(self, operation: Operation, annotation: ast.expr) -> Kind:
        if annotation not in self._kinds_read:
            self._kinds_read[annotation] = self._kinds.read(annotation, operation.module)
        return self._kinds_read[annotation]

    def _rows(self) -> dict[tuple[str, int], list[tuple[re.Pattern[str], Operation]]]:
        if self._table is None:
            table: dict[tuple[str, int], list[tuple[re.Pattern[str], Operation]]] = {}
            for source in self._sources.named("_*_service.py"):
                for operation in self._of_service(source):
                    row = table.setdefault((operation.method, operation.path.count("/")), [])
                    row.append((_pattern(operation.path), operation))
            for row in table.values():
                row.sort(key=lambda each: len(_PLACE.findall(each[1].path)))
            self._table = table
        return self._table

    def _of_service(self, source: Source) -> Iterator[Operation]:
        for service in source.classes.values():
            for method in service.body:
                if isinstance(method, ast.FunctionDef):
                    for call in _requests_in(method):
                        yield self._operation(source, f"{service.name}.{method.name}", method, call)

    def _operation(
        self, source: Source, service: str, method: ast.FunctionDef, call: ast.Call
    ) -> Operation:
        """One method of a service."""
        verb, path = call.args[0], call.args[1]
        if isinstance(path, ast.Call) and isinstance(path.func, ast.Attribute):
            path = path.func.value  # "/v1/invoices/{invoice}".format(...)
        if not isinstance(verb, ast.Constant) or not isinstance(path, ast.Constant):
            raise TypeError(f"{source.name}: {ast.unparse(call)} is not understood")
        if method.returns is None:
            raise TypeError(f"{source.name}: {service} does not say what it answers")
        return Operation(
            str(verb.value).upper(),
            str(path.value),
            service,
            source.name,
            _annotation(method, "params"),
            method.returns,
        )


def _annotation(method: ast.FunctionDef, parameter: str) -> ast.expr | None:
    for argument in (*method.args.posonlyargs, *method.args.args):
        if argument.arg == parameter:
            return argument.annotation
    return None


def _requests_in(method: ast.FunctionDef) -> Iterator[ast.Call]:
    for node in ast.walk(method):
        match node:
            case ast.Call(func=ast.Attribute(attr=name)) if name in _SENDS:
                yield node


def _pattern(path: str) -> re.Pattern[str]:
    literal = [re.escape(part) for part in _PLACE.split(path)]
    return re.compile("[^/]+".join(literal))
