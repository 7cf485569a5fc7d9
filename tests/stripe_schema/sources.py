"""The installed package as syntax: its modules, their classes, and where each name comes from.

Nothing is imported and nothing evaluated: importing all of Stripe's types costs seconds and their
annotations are strings either way. A module is parsed when it is first asked for and kept.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import stripe

INSTALLED = Path(stripe.__file__).parent
ROOT = "stripe"


@dataclass(frozen=True, slots=True)
class Source:
    """One module: its classes, its imports by local name, its TypedDicts written as calls."""

    name: str
    classes: dict[str, ast.ClassDef]
    imports: dict[str, tuple[str, str]]
    calls: dict[str, ast.Call]


class Sources:
    """All modules under one folder that holds a `stripe` package."""

    def __init__(self, folder: Path = INSTALLED) -> None:
        self.folder = folder
        self._read: dict[str, Source] = {}

    def module(self, name: str) -> Source:
        """The module of this dotted name, `stripe._invoice`."""
        if name not in self._read:
            self._read[name] = self._parse(name)
        return self._read[name]

    def named(self, pattern: str) -> Iterator[Source]:
        """The modules whose file matches, in the order of their paths."""
        for path in sorted(self.folder.rglob(pattern)):
            parts = path.relative_to(self.folder).with_suffix("").parts
            yield self.module(".".join((ROOT, *parts)))

    def find(self, module: str, name: str) -> tuple[str, str] | None:
        """Where the name that this module knows is defined; None if it is not Stripe's."""
        seen = set()
        while module.startswith(ROOT) and module not in seen:
            seen.add(module)
            source = self.module(module)
            if name in source.classes:
                return module, name
            if name not in source.imports:
                return None
            module, name = source.imports[name]
        return None

    def _parse(self, name: str) -> Source:
        path = self.folder.joinpath(*name.split(".")[1:])
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        source = Source(name, {}, {}, {})
        for node in _top_level(ast.parse(file.read_text()).body):
            if isinstance(node, ast.ClassDef):
                source.classes[node.name] = node
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    source.imports[alias.asname or alias.name] = (node.module, alias.name)
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                [target, *_] = node.targets
                if isinstance(target, ast.Name) and ast.unparse(node.value.func) == "TypedDict":
                    source.calls[target.id] = node.value
        return source


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a module and of what it does for type checkers only."""
    for node in body:
        if isinstance(node, ast.If):
            yield from _top_level(node.body)
        else:
            yield node
