"""Errors of the control API as RFC 9457 problem details, mapped in one place."""

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import exception_handler

from meterplane.kernel.errors import CallerError, WorldError


def as_problem(failure: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's exception handler. Unknown exceptions stay exceptions: they are our fault."""
    if isinstance(failure, CallerError | WorldError):
        response = _response(problem_of(failure))
        if failure.retry_after_s is not None:
            response["Retry-After"] = str(failure.retry_after_s)
        return response
    if isinstance(failure, Http404):
        failure = exceptions.NotFound()
    elif isinstance(failure, PermissionDenied):
        failure = exceptions.PermissionDenied()
    known = exception_handler(failure, context)
    if known is None or not isinstance(failure, exceptions.APIException):
        return known
    response = _response(_problem(_code(failure), _sentence(failure), known.status_code))
    if isinstance(failure, exceptions.ValidationError):
        response.data["errors"] = known.data
    for name in ("WWW-Authenticate", "Retry-After"):
        if name in known:
            response[name] = known[name]
    return response


def problem_of(failure: CallerError | WorldError) -> dict[str, Any]:
    """The problem details of one failure, which may be one of many in an answer."""
    body = _problem(failure.code, failure.message, failure.status)
    if isinstance(failure, CallerError) and failure.field:
        body["field"] = failure.field
    return body


def _problem(code: str, detail: str, status: int) -> dict[str, Any]:
    body = {"type": f"urn:meterplane:problem:{code}", "title": code.replace("_", " "), "code": code}
    return body | {"detail": detail, "status": status}


def _response(body: dict[str, Any]) -> Response:
    return Response(body, status=body["status"], content_type="application/problem+json")


def _code(failure: exceptions.APIException) -> str:
    return "invalid" if isinstance(failure, exceptions.ValidationError) else failure.default_code


def _sentence(failure: exceptions.APIException) -> str:
    if isinstance(failure, exceptions.ValidationError):
        return "The request has fields that cannot be used as sent; see errors."
    return str(failure.detail)
