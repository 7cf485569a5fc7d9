"""Whether inference servers, or a model on one of them, are ready."""

from meterplane.kernel.errors import WorldError
from meterplane.triton.client import TritonClient
from meterplane.triton.pool import Pool
from meterplane.triton.request import Request
from meterplane.triton.v2 import SERVER_READY, model_path

READY_TIMEOUT_S = 2.0


async def ready(triton: Pool | TritonClient, model: str | None = None, version: str = "") -> bool:
    """True when one of the servers says that it, or a model on it, is ready.

    Another is asked when one cannot be reached. Not when one says no: a model that is ready on
    some servers only is the fleet's matter, request by request.
    """
    pool = triton if isinstance(triton, Pool) else triton.fleet.pool()
    path = SERVER_READY if model is None else model_path(model, "ready", version)
    try:
        answer = await pool.fetch(
            Request("GET", path),
            first_byte_timeout_s=READY_TIMEOUT_S,
            idle_timeout_s=READY_TIMEOUT_S,
        )
    except WorldError:
        return False
    return answer.status == 200
