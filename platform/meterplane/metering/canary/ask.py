"""The known requests: one a model, as small as it takes, through the gateway's public door."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from meterplane.catalog.models import Model

TIMEOUT_S = 30.0
BODY_BYTES_MAX = 1 << 20
WORDS = "The canary sings."
TOKENS_OUT = 8
NUMBERS = ("FP", "INT", "UINT", "BF", "BOOL")


class NoAnswer(Exception):
    """The gateway did not answer as it must; says how."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer: whose request, what it says was used, and when (monotonic) it was whole.

    `tokens_in` and `tokens_out` are what its `usage` says; 0 where its protocol says none.
    """

    model: str
    request_id: UUID
    tokens_in: int
    tokens_out: int
    at: float


class Door:
    """The gateway, as the canary's key sees it."""

    def __init__(self, base_url: str, secret: str) -> None:
        parts = urlsplit(base_url)
        self._make = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._place = (parts.hostname or "", parts.port)
        self._prefix = parts.path.rstrip("/")
        self._secret = secret

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body. Raises `NoAnswer`."""
        status, _, body = self._exchange("GET", path, None)
        return status, body

    def ask(self, model: Model) -> Answered:
        """One request of a model. Raises `NoAnswer` unless it is answered well and counted."""
        path, document = self._request_of(model)
        status, headers, body = self._exchange("POST", path, document)
        at = time.monotonic()
        if status != 200:
            raise NoAnswer(f"{path} was answered {status}: {body[:300].decode('utf-8', 'replace')}")
        try:
            usage = json.loads(body).get("usage") or {}
            return Answered(
                model.name,
                UUID(headers["x-request-id"]),
                int(usage.get("prompt_tokens", 0)),
                int(usage.get("completion_tokens", 0)),
                at,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as odd:
            raise NoAnswer(f"{path} was answered with what is no answer: {odd!r}") from None

    def _request_of(self, model: Model) -> tuple[str, dict[str, Any]]:
        if model.adapter == Model.Adapter.EMBEDDING:
            return "/v1/embeddings", {"model": model.name, "input": WORDS}
        if model.adapter == Model.Adapter.TENSOR:
            return f"/v2/models/{model.name}/infer", {"inputs": self._tensors(model.name)}
        return "/v1/chat/completions", {
            "model": model.name,
            "max_tokens": TOKENS_OUT,
            "messages": [{"role": "user", "content": WORDS}],
        }

    def _tensors(self, model: str) -> list[dict[str, Any]]:
        """The smallest input the model's own metadata allows, all zeros."""
        status, body = self.get(f"/v2/models/{model}")
        try:
            inputs = json.loads(body)["inputs"] if status == 200 else []
            return [_zeros(each) for each in inputs]
        except (ValueError, KeyError, TypeError) as odd:
            raise NoAnswer(f"what {model} takes cannot be read: {odd!r}") from None

    def _exchange(
        self, method: str, path: str, document: dict[str, Any] | None
    ) -> tuple[int, Mapping[str, str], bytes]:
        connection = self._make(*self._place, timeout=TIMEOUT_S)
        headers = {"Authorization": f"Bearer {self._secret}", "Content-Type": "application/json"}
        try:
            content = None if document is None else json.dumps(document).encode()
            connection.request(method, self._prefix + path, content, headers)
            answer = connection.getresponse()
            body = answer.read(BODY_BYTES_MAX)
            told = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, told, body
        except (OSError, HTTPException) as broken:
            raise NoAnswer(f"{path} was not answered: {broken!r}") from None
        finally:
            connection.close()


def _zeros(tensor: dict[str, Any]) -> dict[str, Any]:
    shape = [max(1, size) for size in tensor["shape"]]
    count = 1
    for size in shape:
        count *= size
    datatype = tensor["datatype"]
    zero = 0 if datatype.startswith(NUMBERS) else ""
    return {
        "name": tensor["name"], "shape": shape, "datatype": datatype, "data": [zero] * count
    }  # fmt: skip
