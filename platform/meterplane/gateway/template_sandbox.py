"""The environment chat templates are compiled and run in. See `templates`; imported when needed."""

import json
from typing import Any, NoReturn

from jinja2 import Environment, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from meterplane.kernel import clock

REPEATED_CHARS_MAX = 1024 * 1024  # of a single `*` inside a template


class Refused(TemplateError):
    """The template called `raise_exception`: it does not take these messages."""


class _Generation(Extension):
    """`{% generation %}` marks what a model is trained to write; here it is only its content."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Products and powers are looked at first, and never computed while compiling."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            raise SecurityError("powers are not computed in a chat template")
        for text, times in ((left, right), (right, left)):
            repeats = isinstance(text, str | list) and isinstance(times, int)
            if repeats and len(text) * times > REPEATED_CHARS_MAX:
                raise SecurityError("a text is repeated too often")
        return super().call_binop(context, operator, left, right)


def _raise_exception(message: str) -> NoReturn:
    raise Refused(str(message))


def _strftime_now(form: str) -> str:
    """The present instant, UTC, as a template wants it."""
    return clock.now().strftime(form)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes HTML, which no model was trained on."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def sandbox() -> Environment:
    """The environment, one for all templates of a worker."""
    environment = _Sandbox(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols", _Generation],
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment
