"""Whether inference servers are ready."""

from meterplane.kernel.errors import WorldError
from meterplane.triton.client import TritonClient

READY_TIMEOUT_S = 2.0


async def ready(client: TritonClient, model: str | None = None) -> bool:
    """True when a server says that it, or a model on it, is ready."""
    path = "/v2/health/ready" if model is None else f"/v2/models/{model}/ready"
    try:
        answer = await client.request("GET", path, first_byte_timeout_s=READY_TIMEOUT_S)
    except WorldError:
        return False
    return answer.status == 200
