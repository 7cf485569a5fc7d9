"""Stripe's own types as judge: declared fields of a resource, declared parameters of a call.

Read from the source of the installed SDK, so that the judge is always the pinned version and a
new major that moves a field fails a test that names it.
"""

import ast
from functools import cache
from pathlib import Path
from typing import Any

import stripe

FOLDER = Path(stripe.__file__).parent


@cache
def _classes(path: Path) -> dict[str, ast.ClassDef]:
    tree = ast.parse(path.read_text())
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _declared(node: ast.ClassDef) -> dict[str, str]:
    return {
        each.target.id: ast.unparse(each.annotation)
        for each in node.body
        if isinstance(each, ast.AnnAssign)
        and isinstance(each.target, ast.Name)
        and each.target.id.islower()
    }


def _inner(node: ast.ClassDef) -> dict[str, ast.ClassDef]:
    return {each.name: each for each in node.body if isinstance(each, ast.ClassDef)}


def parameters(module: str) -> dict[str, str]:
    """Parameter names of a call and their types, from `params/_<module>_params.py`."""
    path, name = _place(module)
    return _declared(_classes(path)[name])


def nested_parameters(module: str, suffix: str) -> dict[str, str]:
    """Parameter names of a nested object, such as one line of `add_lines`."""
    path, name = _place(module)
    return _declared(_classes(path)[name + suffix])


def _place(module: str) -> tuple[Path, str]:
    folder, _, bare = module.rpartition("/")
    name = "".join(part.title() for part in bare.split("_")) + "Params"
    return FOLDER / "params" / folder / f"_{bare}_params.py", name


def judged(answer: Any) -> Any:
    """The answer of the sandbox as the SDK gave it, after a look at its shape."""
    shown = answer.to_dict(for_json=True)
    kind = shown["object"]
    named = {
        "line_item": "invoice_line_item",
        "item": "line_item",
        "invoiceitem": "invoice_item",
    }.get(kind, kind)
    folder, _, module = named.rpartition(".")
    cls = "".join(part.title() for part in module.split("_"))
    found = complaints(shown, f"{folder}/_{module}" if folder else module, cls)
    assert not found, found
    return answer


def _file(module: str) -> str:
    return f"{module}.py" if "/" in module else f"_{module}.py"


def complaints(value: dict[str, Any], module: str, cls: str) -> list[str]:
    """Where an answered object and the SDK's class disagree: absent, null, unknown, mistyped."""
    return _compare(value, _classes(FOLDER / _file(module))[cls], cls)


def _compare(value: dict[str, Any], node: ast.ClassDef, where: str) -> list[str]:
    declared, inner = _declared(node), _inner(node)
    found = [f"{where}.{name} is not Stripe's" for name in value if name not in declared]
    for name, annotation in declared.items():
        optional = annotation.startswith("Optional[")
        bare = annotation.removeprefix("Optional[").removesuffix("]") if optional else annotation
        place = f"{where}.{name}"
        if name not in value:
            if not optional:
                found.append(f"{place} is absent")
        elif value[name] is None:
            if not optional:
                found.append(f"{place} is null")
        elif bare in inner:
            found += _compare(value[name], inner[bare], place)
        elif not _fits(value[name], bare):
            found.append(f"{place}: {value[name]!r} is no {bare}")
    return found


def _fits(value: Any, annotation: str) -> bool:
    if annotation == "int":
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation == "bool":
        return isinstance(value, bool)
    if annotation in ("str", "Decimal"):  # decimals travel as strings
        return isinstance(value, str)
    if annotation.startswith("List["):
        return isinstance(value, list)
    if annotation.startswith("Literal["):
        return value in ast.literal_eval(annotation.removeprefix("Literal"))
    if annotation.startswith("Union[Literal["):
        return value in ast.literal_eval(annotation[len("Union[Literal") :].partition("]")[0] + "]")
    return True
