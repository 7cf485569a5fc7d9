"""How a model is reached and read: what the catalog says and every gateway obeys. Version 1.

Stored as one JSON document in `gateway_model.document`, by model name and version. A policy names
the version it was compiled with (`ModelPolicy.serving_version`), so that a change of the catalog
reaches a gateway with the policies and needs no restart.
"""

import msgspec


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment of a model: equal servers that hold it.

    `name` is shown in usage. `weight` is its share of requests among its model's targets; 0 takes
    none. `servers` are `http://` or `https://` bases, `grpc_servers` are `host:port`; empty means
    the gateway's own (`TRITON_URLS`, `TRITON_GRPC_URLS`). `version` pins a version on the server.
    `region` and `gpu_type` say where and on what it serves: usage carries them, and prices may be
    matched by them. Empty: not said.
    """

    name: str = "default"
    upstream: str
    weight: int = 1
    servers: list[str] = []
    grpc_servers: list[str] = []
    version: str = ""
    region: str = ""
    gpu_type: str = ""


class ModelServing(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about one model that no key can change.

    Attributes:
        targets: at least one; a request is split among them by weight.
        fallbacks: names of models asked, in order, when no target of this one can take a request.
            A key must be allowed to use a fallback itself; it is billed at the fallback's prices.
        chat_template: Jinja, as in a tokenizer's configuration; empty: the tokenizer's own, else a
            plain `role: text` prompt.
        tokenizer: a folder below the gateway's `TOKENIZERS_DIR` with `tokenizer.json`; empty: none.
        parameters: request fields beyond the surface's own that are forwarded as they are.
        inputs, outputs: tensors a caller may name; empty: any.
        bill_errors: a request that the model failed is due for what it used (default: free).
        continuous_usage: the `openai` upstream reports running totals in every chunk when asked.
        secret_env: name of the gateway's environment variable that holds the upstream's API key.
        first_byte_timeout_s, idle_timeout_s, duration_s_max: 0 is the gateway's own bound.
        in_flight_max: requests one gateway worker forwards at once; 0: no bound, and no queue.
        queue_max, queue_s_max: how many more wait for their turn there, and how long each at most.
        priority_levels: of the model's scheduler on Triton; 0: it has none.
    """

    name: str
    version: int
    targets: list[Target]
    fallbacks: list[str] = []
    chat_template: str = ""
    tokenizer: str = ""
    parameters: list[str] = []
    inputs: list[str] = []
    outputs: list[str] = []
    bill_errors: bool = False
    continuous_usage: bool = False
    secret_env: str = ""
    first_byte_timeout_s: float = 0
    idle_timeout_s: float = 0
    duration_s_max: float = 0
    in_flight_max: int = 0
    queue_max: int = 512
    queue_s_max: float = 10
    priority_levels: int = 0


_decoder = msgspec.json.Decoder(ModelServing)


def encode(serving: ModelServing) -> bytes:
    """The JSON document of `gateway_model.document`."""
    return msgspec.json.encode(serving)


def decode(document: bytes | str) -> ModelServing:
    """Raises `msgspec.ValidationError` when the document is not a version-1 serving."""
    return _decoder.decode(document)
