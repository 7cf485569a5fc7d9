"""Bodies of JSON: as they are read by all of the API, and those in which a number keeps every
digit, on the way in and on the way out.

Guarantees: a body is read up to its bound and no further; whatever it holds, it is a value or a
`CallerError`. Quantities leave as the digits they are stored with.
"""

import json
from collections.abc import Mapping
from typing import IO, Any

import msgspec
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser, JSONParser
from rest_framework.renderers import BaseRenderer

from meterplane.kernel.errors import CallerError
from meterplane.metering.external.exact_json import Unusable, decode

BODY_BYTES_MAX = 4 * 1024 * 1024  # 1,000 events of 4 kB each

_encoder = msgspec.json.Encoder(decimal_format="number", enc_hook=str)


class AnyJSON(JSONParser):
    """`application/json` as the framework reads it, and what it would break at is refused: a body
    of a thousand levels, and half a character, which no answer could repeat."""

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        """The value. Raises `ParseError`."""
        try:
            body = super().parse(stream, media_type, parser_context)
            json.dumps(body, ensure_ascii=False).encode()
        except RecursionError:
            raise ParseError("The body is nested deeper than anything that is read here.") from None
        except UnicodeEncodeError:
            raise ParseError("The body has half of a surrogate pair, which is no text.") from None
        return body


class ExactJSON(BaseParser):
    """`application/json`, its numbers as int and `Decimal`."""

    media_type = "application/json"

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        """The value. Raises `CallerError` 413 or 400."""
        body = stream.read(BODY_BYTES_MAX + 1)
        if len(body) > BODY_BYTES_MAX:
            raise CallerError(
                "body_too_large",
                f"The body is larger than {BODY_BYTES_MAX // 1024**2} MiB; send it in parts.",
                status=413,
            )
        try:
            return decode(body)
        except ValueError as wrong:
            raise CallerError("parse_error", str(wrong)) from None


class CloudEvent(ExactJSON):
    """One event in structured mode."""

    media_type = "application/cloudevents+json"


class CloudEventBatch(ExactJSON):
    """Many events."""

    media_type = "application/cloudevents-batch+json"


class ExactRenderer(BaseRenderer):
    """JSON; a `msgspec.Raw` in it is JSON already, as it was stored."""

    media_type = "application/json"
    format = "json"
    charset = None

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        """The bytes."""
        return b"" if data is None else _encoder.encode(data)


def object_of(body: Any) -> dict[str, Any]:
    """A body that must be an object. Raises `CallerError` `body_invalid`."""
    if isinstance(body, Unusable):
        raise CallerError("body_invalid", f"The body {body.reason}.")
    if not isinstance(body, dict):
        raise CallerError("body_invalid", "Send a JSON object.")
    return body


def text_of(body: Mapping[str, Any], name: str, default: str | None = None) -> str:
    """A text in it. Raises `CallerError` naming the field."""
    value = body.get(name, default)
    if not isinstance(value, str) or not value.isprintable():
        raise CallerError("body_invalid", f"{name} must be text.", field=name)
    return value
