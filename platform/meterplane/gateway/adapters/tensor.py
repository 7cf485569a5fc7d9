"""Any model, by Triton's v2 protocol: tensors as they are, metered by request, rows and bytes."""

from meterplane.gateway.adapters.kserve_words import answer_in_our_names
from meterplane.gateway.ask import JSON_REQUEST, fetch, finish, headers_for
from meterplane.gateway.compressed import compress, encoding_for
from meterplane.gateway.exchange import Exchange
from meterplane.gateway.pipeline import Parts
from meterplane.gateway.run import Run
from meterplane.gateway.surfaces import kserve_infer
from meterplane.gateway.surfaces.kserve_models import target_with
from meterplane.gateway.triton_priority import scheduling_of
from meterplane.triton.failures import TritonBroken
from meterplane.triton.request import Request
from meterplane.triton.upstream import Response


async def forward(exchange: Exchange, run: Run, parts: Parts) -> None:
    """`infer`, JSON or binary both ways. Raises `CallerError` or `WorldError`."""
    work = run.work
    assert isinstance(work, kserve_infer.InferWork)
    body, json_bytes = work.upstream(run.offer, scheduling_of(run))
    content = JSON_REQUEST
    if json_bytes is not None:
        content = (
            b"content-type: application/octet-stream\r\ninference-header-content-length: %d\r\n"
            % json_bytes
        )
    run.target = target_with(work.version, run.target, run.offer.serving)
    path = kserve_infer.path(run.target.upstream, work.version or run.target.version)
    request = Request("POST", path, body, headers_for(exchange, run, content))
    answer = await fetch(exchange, run, request, parts)
    split = _split_of(answer)
    run.served = True
    headers = b"content-type: %b\r\n" % answer.headers.get(b"content-type", b"application/json")
    told = answer_in_our_names(answer.body, run, split)
    if split is not None:
        # Of the plain answer, also when it leaves compressed.
        json_bytes = split + len(told) - len(answer.body)
        headers += b"inference-header-content-length: %d\r\n" % json_bytes
        run.tensor_bytes_out = len(told) - json_bytes
    encoding = encoding_for(exchange.headers.get(b"accept-encoding"))
    if encoding and told:
        told = await compress(told, encoding)
        headers += b"content-encoding: %b\r\n" % encoding
    await finish(exchange, run, headers, told)


def _split_of(answer: Response) -> int | None:
    """How much of an answer is JSON; None: all of it. Raises `TritonBroken`."""
    length = answer.headers.get(kserve_infer.HEADER_LENGTH)
    if length is None:
        return None
    if not length.isdigit() or int(length) > len(answer.body):
        raise TritonBroken("its Inference-Header-Content-Length does not fit its body")
    return int(length)
