"""Whether a chat template compiles, in the sandbox it will be rendered in. Renders nothing."""

from jinja2 import TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment


class _Compiler(ImmutableSandboxedEnvironment):
    """As tokenizers' templates expect it: block tags eat their lines, loops can break.

    Jinja computes constant expressions while it compiles; products and powers are left alone, or
    `{{ 9 ** 9 ** 9 }}` would never come back.
    """

    intercepted_binops = frozenset({"*", "**"})


_compiler = _Compiler(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])


def why_it_does_not_compile(template: str) -> str | None:
    """What is wrong with a template, with its line; None when it compiles."""
    try:
        _compiler.from_string(template)
    except TemplateSyntaxError as wrong:
        return f"line {wrong.lineno}: {wrong.message}"
    except SyntaxError as wrong:  # Python's, about what Jinja made of it
        return f"{wrong.msg} (a break or continue outside a loop, or too deep a nest)"
    except RecursionError:
        return "it is nested too deeply"
    return None
