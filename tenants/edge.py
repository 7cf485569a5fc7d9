"""The edge of `/v1` on the control plane: who calls, and every failure in the OpenAI shape.

The gateway gives each request its id and passes it on; a request that comes here directly gets one.
"""

import functools
import logging
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec
from uuid import UUID

import msgspec
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

from meterplane.kernel.errors import CallerError, WorldError
from meterplane.kernel.ids import uuid7
from tenants import openai_errors
from tenants.callers import Caller, identify

log = logging.getLogger(__name__)
P = ParamSpec("P")
View = Callable[Concatenate[HttpRequest, Caller, P], HttpResponseBase]


def answers(*methods: str) -> Callable[[View[P]], Callable[..., HttpResponseBase]]:
    """Make a view of a function of request and caller, for these methods."""

    def wrap(view: View[P]) -> Callable[..., HttpResponseBase]:
        @csrf_exempt  # no cookie speaks for anybody here
        @functools.wraps(view)
        def answer(request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
            request_id = _request_id(request)
            try:
                caller = identify(request.headers.get("Authorization", ""))
                if request.method not in methods:
                    raise CallerError(
                        "method_not_allowed", f"Use {' or '.join(methods)} here.", status=405
                    )
                response = view(request, caller, *args, **kwargs)
            except (CallerError, WorldError) as failure:
                response = _refused(failure)
                if failure.status == 405:
                    response["Allow"] = ", ".join(methods)
            except Exception:
                log.exception("request %s failed", request_id)
                response = _refused(
                    WorldError(
                        "internal_error",
                        f"Something is wrong on our side. Mention request {request_id}.",
                        status=500,
                        retry_after_s=None,
                    )
                )
            response["x-request-id"] = str(request_id)
            response["Cache-Control"] = "no-store"
            return response

        return answer

    return wrap


def as_json(shape: dict[str, Any], status: int = 200) -> HttpResponse:
    """A JSON answer."""
    return HttpResponse(msgspec.json.encode(shape), status=status, content_type="application/json")


def _refused(failure: CallerError | WorldError) -> HttpResponse:
    response = as_json(openai_errors.body(failure), failure.status)
    for name, text in openai_errors.headers(failure).items():
        response[name] = text
    return response


def _request_id(request: HttpRequest) -> UUID:
    try:
        return UUID(request.headers.get("x-request-id", ""))
    except ValueError:
        return uuid7()
