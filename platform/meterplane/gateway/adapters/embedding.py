"""An embedding model on Triton that takes TEXT and answers EMBEDDING and TOKENS.

What the model's allow-list lets through beyond OpenAI's fields reaches it as parameters of the
request, which are scalars in Triton's protocol: anything else is refused, and nothing is dropped.
"""

import msgspec

from meterplane.gateway import errors
from meterplane.gateway.ask import JSON_REQUEST, fetch, finish, headers_for
from meterplane.gateway.exchange import JSON, Exchange
from meterplane.gateway.pipeline import Parts
from meterplane.gateway.run import Run
from meterplane.gateway.surfaces import kserve_infer, openai_embeddings
from meterplane.gateway.triton_priority import scheduling_of
from meterplane.kernel.errors import CallerError
from meterplane.triton.request import Request

LENGTH_DIGITS_MAX = 12  # 1 TB; an answer is far smaller


async def forward(exchange: Exchange, run: Run, parts: Parts) -> None:
    """Texts to vectors, counted by the model's tokenizer. Raises `CallerError`, `WorldError`."""
    work = run.work
    assert isinstance(work, openai_embeddings.EmbeddingsWork)
    path = kserve_infer.path(run.target.upstream, run.target.version)
    texts = work.texts(run.offer)
    body = _with_parameters(openai_embeddings.upstream_body(texts), work.extras, scheduling_of(run))
    request = Request("POST", path, body, headers_for(exchange, run, JSON_REQUEST))
    answer = await fetch(exchange, run, request, parts)
    split = answer.headers.get(kserve_infer.HEADER_LENGTH, b"0")
    if not split.isdigit() or len(split) > LENGTH_DIGITS_MAX:
        raise errors.unmeasurable()
    prefix, tensors = answer.body[: int(split)], answer.body[int(split) :]
    tokens, width = openai_embeddings.read_answer(prefix, tensors, len(texts))
    run.served = True
    run.tokens_in = sum(tokens)
    run.tensor_bytes_out = len(tensors)
    run.provenance = "tokenizer"
    content = openai_embeddings.answer(
        work.request,
        tensors,
        width,
        run.model.name,
        run.tokens_in,
        may_shorten="dimensions" in run.offer.serving.parameters,
    )
    await finish(exchange, run, JSON, content)


def _with_parameters(
    body: bytes, extras: dict[str, msgspec.Raw], scheduling: dict[str, int]
) -> bytes:
    if not extras and not scheduling:
        return body
    for name, value in extras.items():
        if not isinstance(msgspec.json.decode(value), (str, int, float)):
            raise CallerError(
                "invalid_value",
                f"This model takes a text, a number or true or false as {name[:80]!r}.",
                field=name[:80],
            )
    parameters = {"parameters": {**extras, **scheduling}}
    return body[:-1] + b"," + msgspec.json.encode(parameters)[1:]
