"""What of a request would reach a server: the adapters' own way to it, and a server that notes it.

Between the two is everything the gateway does, admission aside. `violations` reads what was noted
as strictly as the strictest server: a name twice, or a name that is not listed, is one.
"""

import json
import re
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import tokenizers

from meterplane.contracts.policy import KeyPolicy, ModelPolicy, UnitPrices
from meterplane.contracts.serving import ModelServing, Target
from meterplane.gateway import forward
from meterplane.gateway.admit import Admission
from meterplane.gateway.callers import Caller
from meterplane.gateway.exchange import Exchange
from meterplane.gateway.offers import Plan
from meterplane.gateway.prompts import Prompts
from meterplane.gateway.run import Run
from meterplane.gateway.servings import Servings
from meterplane.gateway.surface import Work
from meterplane.gateway.surfaces.generate_keys import KEYS, RESERVED_NAMES, VLLM_SAMPLING
from meterplane.gateway.tokenizers import Tokenizer
from meterplane.gateway.turns import Turns
from meterplane.triton.request import Request

PRICES = UnitPrices(input_token_pico=150_000, output_token_pico=600_000, request_pico=1_000)
TOKENS_OUT_MAX, CONTEXT_MAX = 1024, 4096
NOBODY = UUID(int=0)
ALLOWED = ["tools", "tool_choice", "top_k", "suffix", "ignore_eos", "dimensions", "min_p"]

_TEXT = {
    "model", "stream", "stream_options", "max_tokens", "temperature", "top_p", "n", "seed", "stop",
    "frequency_penalty", "presence_penalty",
}  # fmt: skip
LISTED: dict[tuple[str, str], set[str]] = {
    ("openai.chat", "openai"): _TEXT
    | {"messages", "max_completion_tokens", "logprobs", "top_logprobs"},
    ("openai.completions", "openai"): _TEXT | {"prompt", "echo", "logprobs"},
    ("openai.embeddings", "openai"): {"model", "input", "encoding_format", "dimensions"},
    ("openai.embeddings", "embedding"): {"inputs", "outputs", "parameters"},
    ("kserve.infer", "tensor"): {"inputs", "outputs", "id", "parameters"},
}
for _surface in ("openai.chat", "openai.completions"):
    _sampling = {"temperature", "top_p", "frequency_penalty", "presence_penalty", "seed"}
    _asked = {"text_input", "return_num_input_tokens", "return_num_output_tokens"}
    LISTED[_surface, "vllm"] = _asked | {
        "stream", "sampling_parameters", "exclude_input_in_output", "return_finish_reason",
        "return_logprobs",
    }  # fmt: skip
    LISTED[_surface, "tensorrtllm"] = _asked | _sampling | {
        "max_tokens", "stream", "exclude_input_in_output", "stop_words", "num_return_sequences",
    }  # fmt: skip
    LISTED[_surface, "llmapi"] = {
        "text_input", "streaming", "return_finish_reason",
        *("sampling_param_" + name for name in _sampling | {"max_tokens", "stop", "n"}),
        "sampling_param_exclude_input_from_output",
    }  # fmt: skip
for _adapter in ("vllm", "tensorrtllm", "llmapi"):
    LISTED["kserve.generate", _adapter] = set(KEYS[_adapter])

BELOW = {
    "messages": {"role", "content", "name", "tool_calls", "tool_call_id", "refusal"},
    "content": {"type", "text"},
    "stream_options": {"include_usage", "continuous_usage_stats"},
    "inputs": {"name", "shape", "datatype", "parameters", "data"},
    "outputs": {"name", "parameters"},
}
PARAMETERS = {"binary_data_output", "binary_data_size", "binary_data", "classification"}
HEADERS = {"content-type", "inference-header-content-length"}
_PATH = re.compile(
    r"/v1/(chat/completions|completions|embeddings)"
    r"|/v2/models/up-[a-z-]+(/versions/[0-9]{1,9})?/(infer|generate|generate_stream)"
)


class Reached(Exception):
    """The request was at the server's door."""


class Recorder:
    """In place of the servers: notes what each would be sent."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def pool(self, servers: Any = None) -> "Recorder":
        return self

    async def fetch(self, request: Request, **_: Any) -> None:
        self.requests.append(request)
        raise Reached

    send = fetch


def byte_tokenizer() -> Tokenizer:
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    made = tokenizers.Tokenizer(
        tokenizers.models.BPE({letter: number for number, letter in enumerate(alphabet)}, [])
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    return Tokenizer(made, {})


class Shop:
    """A key that may use one model of every kind, some with an allow-list."""

    def __init__(self) -> None:
        self.prompts = Prompts()
        self.prompts.tokenizers._held["bytes"] = byte_tokenizer()
        self.servings = Servings(None)  # type: ignore[arg-type]
        self.models: dict[str, ModelPolicy] = {}
        for adapter in ("openai", "vllm", "tensorrtllm", "llmapi", "embedding", "tensor"):
            self._sell(adapter, adapter)
            self._sell(f"{adapter}-more", adapter, parameters=ALLOWED, continuous_usage=True)
        self._sell("llmapi-counted", "llmapi", tokenizer="bytes")
        self._sell("vllm-counted", "vllm", tokenizer="bytes", chat_template="{{ messages }}")
        self._sell("embedding-counted", "embedding", tokenizer="bytes")
        self._sell("tensor-listed", "tensor", inputs=["INPUT0"], outputs=["OUTPUT0"])
        self.policy = KeyPolicy(
            version=1, key_id=NOBODY, tenant_id=NOBODY, project_id=NOBODY, status="active",
            status_reason="", expires_at_ms=None, currency="usd", price_version_id=NOBODY,
            models=self.models, limits=[],
        )  # fmt: skip

    def _sell(self, name: str, adapter: Any, **fields: Any) -> None:
        upstream = f"up-{name}"
        self.models[name] = ModelPolicy(
            name=name, upstream=upstream, adapter=adapter, prices=PRICES, serving_version=1,
            context_tokens_max=CONTEXT_MAX, output_tokens_max=TOKENS_OUT_MAX,
            output_tokens_default=64,
        )  # fmt: skip
        targets = [Target(upstream=upstream)]
        serving = ModelServing(name=name, version=1, targets=targets, **fields)
        self.servings._held[name, 1] = serving

    async def reach(self, work: Work) -> tuple[Run, list[Request]]:
        """What servers are sent for it. Raises `CallerError` or `WorldError` for a refusal."""
        plan = Plan(work, Caller(b""), self.servings, forward.speakers, self.prompts)
        reserved = plan.cost_nano(self.policy)
        assert 0 <= reserved < 2**63
        admission = Admission(NOBODY, self.policy, reserved, [], "", b"", None, 0)  # type: ignore[arg-type]
        run = Run(plan, admission, None, None, Turns())  # type: ignore[arg-type]
        exchange = Exchange(
            SimpleNamespace(transport=None), b"POST", b"/v1/x", b"", {}, chunked=True
        )  # type: ignore[arg-type]
        recorder = Recorder()
        way = forward._WAYS[work.surface, run.model.adapter]
        try:
            await way(exchange, run, SimpleNamespace(fleet=recorder))  # type: ignore[arg-type]
        except Reached:
            return run, recorder.requests
        raise AssertionError("neither refused nor forwarded")


def violations(run: Run, request: Request) -> list[str]:
    """What a server would read that nobody listed."""
    found = [] if _PATH.fullmatch(request.path) else [f"path {request.path!r}"]
    names = [line.partition(b":")[0].decode() for line in request._headers.split(b"\r\n") if line]
    found += [f"header {name!r}" for name in names if name not in HEADERS]
    body = request.body
    split = re.search(rb"inference-header-content-length: (\d+)", request._headers)
    if split is not None:
        body = body[: int(split[1])]
        if not body:
            return found  # raw: the body is one tensor
    document = read(body)
    return found + _unlisted(run, document) + _unbounded(run, document)


def _unlisted(run: Run, document: dict[str, Any]) -> list[str]:
    surface, adapter = run.work.surface, run.model.adapter
    extra = set(run.offer.serving.parameters)
    listed = LISTED.get((surface, adapter))
    if listed is None:  # any model's generate: whatever is a tensor's name
        wrong = [name for name in document if name in RESERVED_NAMES or "shared_memory" in name]
        return [f"key {name!r}" for name in wrong if name not in extra]
    if adapter == "llmapi":
        extra |= {"sampling_param_" + name for name in extra}
    found = [f"key {name!r}" for name in document if name not in listed | extra]
    if surface != "kserve.generate":
        found += _unlisted_below(document, extra)
    if adapter == "vllm":
        sampling = read(document["sampling_parameters"].encode("utf-8", "surrogatepass"))
        found += [f"sampling {name!r}" for name in sampling if name not in VLLM_SAMPLING | extra]
    return found


def _unlisted_below(document: dict[str, Any], extra: set[str]) -> list[str]:
    """Of what we read below the top, too; a tensor's data and a listed extra field are opaque."""
    found = []
    places = [("", document)]
    for field, names in BELOW.items():
        if field in extra or field not in document:
            continue
        below = document[field] if isinstance(document[field], list) else [document[field]]
        for each in below:
            found += [f"{field}.{name!r}" for name in each if name not in names]
            parts = each.get("content") if isinstance(each.get("content"), list) else []
            for part in parts:
                found += [f"content.{name!r}" for name in part if name not in BELOW["content"]]
                places.append(("content", part))
            places.append((field, each))
    for field, each in list(places):
        given = each.get("parameters", {})
        listed = PARAMETERS if field else PARAMETERS | extra
        found += [f"parameter {name!r}" for name in given if name not in listed]
        places.append((field + ".parameters", given))
    return found + [f"{field}: a name twice" for field, each in places if each and each.twice]


def _unbounded(run: Run, document: dict[str, Any]) -> list[str]:
    """More output than was reserved."""
    if run.work.surface in ("openai.embeddings", "kserve.infer") or run.model.adapter == "tensor":
        return []
    if run.model.adapter == "vllm":
        document = read(document["sampling_parameters"].encode("utf-8", "surrogatepass"))
    names = ("max_completion_tokens", "max_tokens", "sampling_param_max_tokens")
    asked = [document[name] for name in names if document.get(name) is not None]
    counts = ("n", "num_return_sequences", "beam_width", "sampling_param_n")
    several = max([_number(document[name]) for name in counts if document.get(name)] or [1])
    if len(asked) != 1 or not isinstance(asked[0], int):
        return [f"bound {asked!r}"]
    within = 0 < asked[0] * several <= run.plan.bounds[0].tokens_out_max
    return [] if within else [f"{asked[0]} x {several} tokens"]


def _number(value: Any) -> int:
    return int(value[0] if isinstance(value, list) else value)


def read(body: bytes) -> dict[str, Any]:
    """A JSON object in which no name comes twice. Below, whoever looks there checks it."""
    text = body.decode("utf-8")
    found: Object = json.loads(text, object_pairs_hook=Object, parse_int=_whole)
    assert isinstance(found, Object), text[:200]
    assert not found.twice, text[:200]
    return found


class Object(dict[str, Any]):
    """A JSON object that knows whether it says a name twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.twice = len(self) != len(pairs)


def _whole(digits: str) -> int:
    return int(digits[:4000])
