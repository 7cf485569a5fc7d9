"""The form of a model of the catalog: each fault beside its field, in words, with what to do."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec
from django import forms

from meterplane.catalog.check import faults_of
from meterplane.catalog.entry import STORED, CatalogEntry, columns
from meterplane.catalog.models import Model
from meterplane.catalog.queries import catalog_entries
from meterplane.catalog.sync import in_words, lock_catalog

HELP = {
    "is_active": "Off: the model leaves every key's policy at once. Models that fall back to it go"
    " on without it.",
    "is_demo": "Shown as a demonstration in the portal.",
    "adapter": "The contract its server speaks; it decides how requests are written and where token"
    " counts come from.",
    "upstream": "Its name on the server. An OpenAI-compatible server's may hold slashes.",
    "targets": 'A list, as [{"name": "stable", "weight": 95}, {"name": "canary", "weight": 5,'
    ' "version": "4", "servers": ["http://triton-b:8000"], "grpc_servers": ["triton-b:8001"]}].'
    " Also: upstream, when a target calls the model differently; region and gpu_type, which usage"
    " carries and prices may match. Requests are split by weight; 0 takes none. Without servers:"
    " the gateway's own. Empty list: one target on those.",
    "fallbacks": 'Models asked in order when no target can take a request, as ["small-model"]. They'
    " must answer the same calls; a key must be allowed to use them and pays their price.",
    "secret_env": "Name of the gateway's environment variable with the server's API key, never the"
    " key itself.",
    "chat_template": "Jinja, as in a tokenizer's configuration. Empty: the tokenizer's own, else"
    " plain role: text lines.",
    "tokenizer": "A folder below the gateway's TOKENIZERS_DIR that holds tokenizer.json. Used where"
    " the server reports no counts.",
    "parameters": 'Request fields beyond the API\'s own that are forwarded as they are, as ["top_k"'
    ', "min_p"]. Others are refused. Fields that reach files, addresses or code can not be listed.',
    "inputs": 'Tensors a caller may send, as ["TEXT"]. Empty list: any the model declares.',
    "outputs": "Tensors a caller may ask for. Empty list: any.",
    "bill_errors": "On: a request the model failed is due for what it used until then.",
    "continuous_usage": "On: the OpenAI-compatible server reports running totals in every chunk, so"
    " that a broken stream is counted exactly.",
    "context_tokens_max": "Input and output together.",
    "output_tokens_max": "A larger max_tokens is lowered to it. 0: the model writes nothing.",
    "output_tokens_default": "Applies when a caller asks for none.",
    "reserve": "How much output is held, and made at most, for a request that asks for no bound:"
    " the above, or what 99 % of such answers of the last seven days needed, learned once an hour"
    " from at least 200 of them. Where it is less, one answer in a hundred is cut there.",
    "first_byte_timeout_s": "Seconds until its server must have begun to answer; 0: the gateway's.",
    "idle_timeout_s": "Seconds between two chunks of a stream; 0: the gateway's.",
    "duration_s_max": "Seconds one request may take; 0: the gateway's.",
    "in_flight_max": "Requests one gateway worker forwards at once; 0: no bound, and nobody waits.",
    "queue_max": "Requests that wait for their turn in one gateway worker; more are refused.",
    "queue_s_max": "Seconds a request waits at most; refused at once where it would take longer.",
    "priority_levels": "As in the model's dynamic_batching on Triton; 0: it has none.",
}
LISTS = ("targets", "fallbacks", "parameters", "inputs", "outputs")


class ListField(forms.JSONField):
    """A JSON list, shown one item a line, and refused with the place where it stops being one."""

    empty_values = [None, ""]  # an empty list is a value here

    def to_python(self, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            found = json.loads(value or "[]")
            json.dumps(found, ensure_ascii=False).encode()  # an escaped half of a character fails
        except (ValueError, RecursionError) as problem:
            raise forms.ValidationError(f"This is not JSON: {_place(problem)}") from None
        if not isinstance(found, list):
            raise forms.ValidationError("Write a list: [...], or [] for none.")
        return found

    def prepare_value(self, value: Any) -> Any:
        if not isinstance(value, list):
            return value  # what was typed, shown again with its fault
        lines = ",\n".join(f"  {json.dumps(item, ensure_ascii=False)}" for item in value)
        return f"[\n{lines}\n]" if value else "[]"

    def bound_data(self, data: Any, initial: Any) -> Any:
        return data


def _place(problem: Exception) -> str:
    if isinstance(problem, UnicodeEncodeError):
        return "it escapes half of a character (\\ud800 to \\udfff)."
    if isinstance(problem, json.JSONDecodeError):
        return f"line {problem.lineno}, column {problem.colno}: {problem.msg}."
    return "it is nested too deeply." if isinstance(problem, RecursionError) else f"{problem}."


class ModelForm(forms.ModelForm):  # type: ignore[type-arg]  # no generic when it runs
    """All of `CatalogEntry` but the name, which is for ever."""

    class Meta:
        model = Model
        fields = [name for name in STORED if name != "name"]
        help_texts = HELP
        field_classes = dict.fromkeys(LISTS, ListField)
        labels = {
            "upstream": "Name on the server",
            "secret_env": "Variable with the server's key",
            "first_byte_timeout_s": "First byte within (s)",
            "idle_timeout_s": "Next chunk within (s)",
            "duration_s_max": "Longest request (s)",
            "in_flight_max": "At once",
            "queue_max": "Waiting",
            "queue_s_max": "Longest wait (s)",
            "priority_levels": "Priority levels",
            "context_tokens_max": "Context, tokens",
            "output_tokens_max": "Output, tokens",
            "output_tokens_default": "Output unless asked, tokens",
            "reserve": "Held where none is asked",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "chat_template" in self.fields:  # not where the page is only looked at
            self.fields["chat_template"].strip = False  # type: ignore[attr-defined]
            for name in LISTS:
                self.fields[name].widget.attrs["rows"] = 4

    def clean_chat_template(self) -> str:
        """Line ends as they were: browsers send CR LF, and a prompt is made of every character."""
        text: str = self.cleaned_data["chat_template"]
        return text.replace("\r\n", "\n")

    def clean(self) -> dict[str, Any]:
        """The check every catalog file goes through, over the catalog as it is now."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if self.errors:
            return cleaned  # a field that could not be read would be a fault twice
        lock_catalog()  # until this page's transaction ends: it is the state that is saved into
        try:
            entry = msgspec.convert({**cleaned, "name": self.instance.name}, CatalogEntry)
        except msgspec.ValidationError as problem:
            self._refuse_shape(cleaned, problem)
            return cleaned
        for fault in faults_of(entry, catalog_entries() | {entry.name: entry}):
            self.add_error(fault.field.partition("[")[0], f"{_named(fault.field)}{fault.problem}")
        return {**cleaned, **{name: columns(entry)[name] for name in LISTS}}

    def validate_constraints(self) -> None:
        """Nothing: `clean` has said it in words, and PostgreSQL holds what slips through."""

    def _refuse_shape(self, cleaned: Mapping[str, Any], problem: msgspec.ValidationError) -> None:
        """A list that holds the wrong things: say which, at its field."""
        said = in_words(problem)
        field = next((name for name in LISTS if said.startswith(name)), None)
        self.add_error(field, said)


def _named(field: str) -> str:
    """The part of a field a fault is about: `targets[1].servers: `."""
    return f"{field} " if "[" in field else ""
