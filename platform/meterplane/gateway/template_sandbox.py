"""The environment chat templates are compiled and run in. See `templates`; imported when needed.

Guarantees: no attribute leads to Python's insides; of Python's own values only listed methods, and
of Jinja only listed filters, can be reached; every round of a loop, call and filter is a step, and
every text is measured before it is made: see `template_limits`.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from itertools import islice
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.filters import do_round
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from meterplane.gateway.template_limits import Limits, short_range
from meterplane.kernel import clock

INDENT_MAX = 64
SEPARATOR_CHARS_MAX = 16
PRECISION_MAX = 32
JSON_GROWTH = 6  # a character as \uXXXX

# Not here: what pads to any width (`center`, `ljust`, `expandtabs`), and `encode`, `format`.
_METHODS: dict[type, frozenset[str]] = {
    str: frozenset((
        "strip", "lstrip", "rstrip", "split", "rsplit", "splitlines", "partition", "rpartition",
        "startswith", "endswith", "lower", "upper", "title", "capitalize", "casefold", "swapcase",
        "replace", "join", "find", "rfind", "index", "rindex", "count", "removeprefix",
        "removesuffix", "isdigit", "isalpha", "isalnum", "isspace", "isupper", "islower",
        "isnumeric", "isdecimal", "istitle", "isascii",
    )),
    dict: frozenset(("keys", "values", "items", "get", "copy")),
    list: frozenset(("count", "index", "copy")),
    tuple: frozenset(("count", "index")),
    int: frozenset(),
    float: frozenset(),
    bytes: frozenset(),
    range: frozenset(),
}  # fmt: skip
_FILTERS = frozenset((
    "abs", "attr", "capitalize", "count", "d", "default", "dictsort", "first", "float", "format",
    "groupby", "indent", "int", "items", "join", "last", "length", "list", "lower", "map", "max",
    "min", "reject", "rejectattr", "replace", "reverse", "round", "safe", "select", "selectattr",
    "sort", "string", "sum", "title", "tojson", "trim", "unique", "upper",
))  # fmt: skip


class Refused(TemplateError):
    """The template called `raise_exception`: it does not take these messages."""


class _Generation(Extension):
    """`{% generation %}` marks what a model is trained to write; here it is only its content."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Generator(CodeGenerator):
    """`~` goes through the environment."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802 - Jinja's name
        self.write("environment.concatenated((")
        for each in node.nodes:
            self.visit(each, frame)
            self.write(", ")
        self.write("))")


class Sandbox(ImmutableSandboxedEnvironment):
    """One for all templates of a worker; `limits` are of the rendering that runs."""

    code_generator_class = _Generator
    # Looked at first, and never computed while compiling.
    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def __init__(self) -> None:
        self.limits = Limits()
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _Generation],
            finalize=self.limits.make_text_of,
        )
        self.filters = {
            name: _counted(self.limits, _FILTERS_OF_OURS.get(name, found))
            for name, found in self.filters.items()
            if name in _FILTERS
        }
        del self.globals["lipsum"]
        self.globals |= {
            "range": short_range,
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
        }

    @property
    def tick(self) -> bool:
        """A step, as templates take it."""
        self.limits.step()
        return True

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(nodes.For):
            loop.body.insert(0, _tick())
            if loop.test is not None:
                loop.test = nodes.And(nodes.EnvironmentAttribute("tick"), loop.test)
        for macro in tree.find_all(nodes.Macro):
            macro.body.insert(0, _tick())
        for block in tree.find_all(nodes.CallBlock):
            block.body.insert(0, _tick())
        return tree

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """As in Jinja, and nothing of Python's values but what is listed."""
        for kind, methods in _METHODS.items():
            if isinstance(obj, kind):
                return attr in methods
        return super().is_safe_attribute(obj, attr, value)

    def unsafe_undefined(self, obj: Any, attribute: str) -> NoReturn:
        """Jinja's own would be written as nothing, and a template that tries seem to work."""
        raise SecurityError(f"{attribute!r} of {type(obj).__name__!r} is out of its reach")

    def wrap_str_format(self, value: Any) -> None:
        """Jinja's own `format` knows no bound; without one it is an attribute like others."""

    def call(self, context: Context, obj: Any, *args: Any, **kwargs: Any) -> Any:
        """As in Jinja, measured. The names of parameters are Jinja's."""
        self.limits.step()
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, str):
            name = getattr(obj, "__name__", "")
            if name == "replace":
                self.limits.make_replaced(owner, str(args[0]), str(args[1]))
            elif name == "join":
                args = (self.limits.make_joined(owner, args[0]),)
        return super().call(context, obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            raise SecurityError("powers are not computed in a chat template")
        if operator == "*":
            self.limits.make_product(left, right)
        elif operator == "+":
            self.limits.make_sum(left, right)
        elif isinstance(left, str):
            self.limits.make_formatted(left, right)
        return super().call_binop(context, operator, left, right)

    def concatenated(self, parts: Iterable[Any]) -> str:
        """`~`."""
        return "".join(map(str, self.limits.make_joined("", parts)))

    def concat(self, parts: Iterable[str]) -> str:
        """What a block or a macro wrote."""
        return "".join(self.limits.make_joined("", parts))


def _tick() -> nodes.Stmt:
    return nodes.ExprStmt(nodes.EnvironmentAttribute("tick"))


def _counted(limits: Limits, found: Callable[..., Any]) -> Callable[..., Any]:
    """A filter whose use is a step; one of ours is given the limits, too."""
    if found in _FILTERS_OF_OURS.values():

        def ours(*args: Any, **kwargs: Any) -> Any:
            limits.step()
            return found(limits, *args, **kwargs)

        return ours

    @wraps(found)  # and so what Jinja passes to it
    def counted(*args: Any, **kwargs: Any) -> Any:
        limits.step()
        return found(*args, **kwargs)

    return counted


def _raise_exception(message: str) -> NoReturn:
    raise Refused(str(message))


def _strftime_now(form: str) -> str:
    """The present instant, UTC, as a template wants it."""
    return clock.now().strftime(form[:100])


def _to_json(
    limits: Limits,
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes HTML, which no model was trained on."""
    if indent is not None and not 0 <= indent <= INDENT_MAX:
        raise SecurityError(f"indent is more than {INDENT_MAX}")
    if separators is not None and len("".join(separators)) > SEPARATOR_CHARS_MAX:
        raise SecurityError("separators are too long")
    limits.make_text_of(value)
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _replaced(limits: Limits, text: Any, old: Any, new: Any, count: int | None = None) -> str:
    whole = str(limits.make_text_of(text))
    limits.make_replaced(whole, str(old), str(new))
    return whole.replace(str(old), str(new), -1 if count is None else count)


def _joined(limits: Limits, parts: Iterable[Any], d: str = "", attribute: str | None = None) -> str:
    """Attributes here are a mapping's members: nothing else in a conversation has any."""
    if attribute is not None:
        parts = [each.get(attribute, "") if isinstance(each, Mapping) else "" for each in parts]
    return str(d).join(map(str, limits.make_joined(str(d), parts)))


def _indented(
    limits: Limits, text: Any, width: int | str = 4, first: bool = False, blank: bool = False
) -> str:
    margin = width if isinstance(width, str) else " " * min(width, INDENT_MAX + 1)
    if len(margin) > INDENT_MAX:
        raise SecurityError(f"indent is more than {INDENT_MAX}")
    whole = str(limits.make_text_of(text))
    limits.make(len(whole) + len(margin) * (whole.count("\n") + 1))
    lines = whole.split("\n")
    found = [
        margin + line if (number or first) and (line or blank) else line
        for number, line in enumerate(lines)
    ]
    return "\n".join(found)


def _formatted(limits: Limits, form: str, *values: Any) -> str:
    limits.make_formatted(form, list(values))
    return form % values


def _listed(limits: Limits, value: Iterable[Any]) -> list[Any]:
    found = list(islice(value, limits.chars_max + 1))
    limits.make(len(found))
    return found


def _text(limits: Limits, value: Any) -> str:
    return str(limits.make_text_of(value))


def _summed(limits: Limits, numbers: Iterable[Any], attribute: Any = None, start: Any = 0) -> Any:
    if not isinstance(start, int | float):
        raise SecurityError("only numbers are summed")
    if attribute is not None:
        numbers = [each[attribute] for each in numbers]
    return sum(numbers, start)


def _rounded(limits: Limits, value: Any, precision: int = 0, method: Any = "common") -> float:
    """Jinja's own raises 10 to the precision."""
    if abs(precision) > PRECISION_MAX:
        raise SecurityError(f"precision is more than {PRECISION_MAX}")
    return do_round(value, precision, method)


_FILTERS_OF_OURS: dict[str, Callable[..., Any]] = {
    "format": _formatted,
    "indent": _indented,
    "join": _joined,
    "list": _listed,
    "replace": _replaced,
    "round": _rounded,
    "string": _text,
    "sum": _summed,
    "tojson": _to_json,
}


def sandbox() -> Sandbox:
    """The environment, one for all templates of a worker."""
    return Sandbox()
