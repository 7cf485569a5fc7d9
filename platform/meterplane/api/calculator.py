"""The calculator: what `manage.py calc` answers, over HTTP, of one question or of many.

A list is answered 200 with an answer for each, in order, whatever became of them: a question that
cannot be used says so in its place. One that comes alone is refused as a problem like any other
request, and carries the calculator's own words beside it as `error`.
"""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.calculator.answer import OPERATIONS, answer, error, result
from meterplane.api.exact import ExactJSON, ExactRenderer
from meterplane.api.problems import problem_of
from meterplane.kernel.errors import CallerError

QUESTIONS_MAX = 1_000

_QUESTION = {
    "type": "object",
    "description": "Decimals are text. Each op takes the fields that `manage.py calc` takes:"
    " no others, and no JSON floats.",
    "required": ["op"],
    "properties": {"op": {"enum": list(OPERATIONS)}},
    "additionalProperties": True,
    "examples": [
        {
            "op": "price",
            "model": {"type": "unit", "unit_amount": "0.00000015"},
            "quantity": "1000000",
            "currency": "USD",
        }
    ],
}
_ERROR = {
    "type": "object",
    "required": ["code", "message", "field"],
    "properties": {
        "code": {"type": "string"},
        "message": {"type": "string"},
        "field": {"type": ["string", "null"]},
    },
}
_ANSWER = {
    "type": "object",
    "description": "What the op answers, or `error`.",
    "properties": {"error": _ERROR},
    "additionalProperties": True,
}


def _one_or_many(one: dict[str, Any]) -> dict[str, Any]:
    return {"oneOf": [one, {"type": "array", "items": one, "maxItems": QUESTIONS_MAX}]}


class Calculator(APIView):
    """What anything would cost."""

    parser_classes = (ExactJSON,)
    renderer_classes = (ExactRenderer,)

    @extend_schema(
        operation_id="v1_pricing_calculate",
        request={"application/json": _one_or_many(_QUESTION)},
        responses={200: _one_or_many(_ANSWER)},
    )
    def post(self, request: Request) -> Response:
        """Answer one question, or each of up to 1,000. Nothing is stored."""
        asked = request.data
        if isinstance(asked, list):
            if len(asked) > QUESTIONS_MAX:
                raise CallerError(
                    "too_many_questions",
                    f"{len(asked)} questions came at once; send at most {QUESTIONS_MAX}.",
                    status=422,
                )
            return Response([answer(each) for each in asked])
        try:
            return Response(result(asked))
        except CallerError as wrong:
            return Response(
                problem_of(wrong) | error(wrong),
                wrong.status,
                content_type="application/problem+json",
            )
