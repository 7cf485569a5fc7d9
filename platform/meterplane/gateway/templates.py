"""Chat templates: Jinja, in its sandbox, with what the models' authors expect there.

Templates come from the catalog or a tokenizer's configuration: they are the operator's, but what is
rendered with them is the caller's, so they run where no attribute leads to Python's insides,
nothing can be changed, and time and size have bounds. Compiled once per model and serving version.

Contract: the environment is that of `apply_chat_template` of Hugging Face's transformers:
`messages`, `add_generation_prompt`, the special tokens, `raise_exception`, `strftime_now`,
`tojson`, `{% generation %}`, loop controls, and blocks that eat their lines.
"""

import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from meterplane.kernel.errors import CallerError, WorldError

if TYPE_CHECKING:
    from jinja2 import Template

    from meterplane.gateway.template_sandbox import Sandbox

log = logging.getLogger("meterplane.gateway")

TEMPLATES_HELD_MAX = 512  # x ~100 kB compiled = 50 MB, if a gateway serves that many models
# What a template may make of a conversation: each message once, and its own words around it. One
# that repeats itself without end is stopped here and not by the memory.
RENDERED_PER_CHAR_MAX = 4
RENDERED_CHARS_SPARE = 256 * 1024
PROBLEM_CHARS_MAX = 300

Key = tuple[str, int, bool]


class Templates:
    """Compiled templates of one worker."""

    def __init__(self) -> None:
        self._environment: Sandbox | None = None
        self._held: OrderedDict[Key, Template] = OrderedDict()

    def render(
        self,
        key: Key,
        source: str,
        messages: list[dict[str, Any]],
        special_tokens: Mapping[str, str],
    ) -> str:
        """A conversation as the model reads it. `key` stands for `source`, which never changes.

        Raises `CallerError` 400 for what the template refuses, `WorldError` 503 when it is broken.
        """
        from meterplane.gateway.template_sandbox import Refused, sandbox  # 25 ms and 4 MB

        if self._environment is None:
            self._environment = sandbox()
        chars_max = RENDERED_CHARS_SPARE + RENDERED_PER_CHAR_MAX * _chars(messages)
        self._environment.limits.begin(messages=len(messages), chars_max=chars_max)
        try:
            template = self._compiled(key, source, self._environment)
            parts: list[str] = []
            for part in template.generate(
                messages=messages, add_generation_prompt=True, **special_tokens
            ):
                parts.append(part)
                chars_max -= len(part)
                if chars_max < 0:
                    raise ValueError("it writes more than its messages can need")
        except Refused as refused:
            raise CallerError(
                "invalid_messages",
                f"The model's chat template refuses these messages: {_short(refused)}.",
                field="messages",
            ) from None
        except Exception as problem:  # whatever a template can raise: it is a program
            log.error("chat template broken", extra={"model": key[0], "problem": _short(problem)})
            raise WorldError(
                "chat_template_broken",
                f"The operator must correct the chat template of {key[0]!r}: {_short(problem)}.",
                retry_after_s=None,
            ) from None
        return "".join(parts)

    def _compiled(self, key: Key, source: str, environment: "Sandbox") -> "Template":
        template = self._held.get(key)
        if template is None:
            template = self._held[key] = environment.from_string(source)
            if len(self._held) > TEMPLATES_HELD_MAX:
                self._held.popitem(last=False)
        return template


def _chars(messages: list[dict[str, Any]]) -> int:
    return sum(len(message["content"]) + 64 for message in messages)


def _short(problem: Exception) -> str:
    return str(problem)[:PROBLEM_CHARS_MAX].rstrip(".") or type(problem).__name__
