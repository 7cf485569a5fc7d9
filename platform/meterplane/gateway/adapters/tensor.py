"""Any model, by Triton's v2 protocol: tensors as they are, metered by request, rows and bytes."""

from meterplane.gateway.ask import JSON_REQUEST, fetch, finish, headers_for
from meterplane.gateway.exchange import Exchange
from meterplane.gateway.pipeline import Parts
from meterplane.gateway.run import Run
from meterplane.gateway.surfaces import kserve_infer
from meterplane.triton.request import Request


async def forward(exchange: Exchange, run: Run, parts: Parts) -> None:
    """`infer`, JSON or binary both ways. Raises `CallerError` or `WorldError`."""
    work = run.work
    assert isinstance(work, kserve_infer.InferWork)
    content = JSON_REQUEST
    if work.json_bytes is not None:
        content = (
            b"content-type: application/octet-stream\r\ninference-header-content-length: %d\r\n"
            % work.json_bytes
        )
    path = kserve_infer.path(run.target.upstream, work.version or run.target.version)
    request = Request("POST", path, work.body, headers_for(exchange, run, content))
    answer = await fetch(exchange, run, request, parts)
    run.served = True
    headers = b"content-type: %b\r\n" % answer.headers.get(b"content-type", b"application/json")
    split = answer.headers.get(kserve_infer.HEADER_LENGTH)
    if split is not None:
        headers += b"inference-header-content-length: %b\r\n" % split
        run.tensor_bytes_out = max(0, len(answer.body) - int(split))
    await finish(exchange, run, headers, answer.body)
