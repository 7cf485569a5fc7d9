"""The caller's faults, in Stripe's error shape; one class, mapped to HTTP once in `app`.

Wordings are Stripe's where we know them. Codes the SDK's types list are used; where Stripe's code
for a case is not known to us, `code` stays absent rather than invented.
"""

from typing import Any

_REFUSED = "invalid_request_error"
# What Stripe's messages call a kind, where it is not the kind's own name.
_NOUNS = {"payment_method": "PaymentMethod"}


class StripeError(Exception):
    """An answer other than 200. `fields` are further members of the `error` object."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = _REFUSED,
        code: str | None = None,
        param: str | None = None,
        fields: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.code = code
        self.param = param
        self.fields = fields or {}

    def body(self) -> dict[str, Any]:
        """The JSON body: `{"error": {...}}` with absent members left out, as Stripe does."""
        error: dict[str, Any] = {"type": self.kind, "message": self.message}
        if self.code is not None:
            error["code"] = self.code
            error["doc_url"] = "https://stripe.com/docs/error-codes/" + self.code.replace("_", "-")
        if self.param is not None:
            error["param"] = self.param
        error.update(self.fields)
        return {"error": error}


def unknown_parameter(param: str) -> StripeError:
    """400: not a parameter of this call, or one the sandbox does not simulate."""
    return StripeError(
        400, f"Received unknown parameter: {param}", code="parameter_unknown", param=param
    )


def missing_parameter(param: str) -> StripeError:
    """400: the call cannot be understood without it."""
    return StripeError(
        400, f"Missing required param: {param}.", code="parameter_missing", param=param
    )


def empty_parameter(param: str) -> StripeError:
    """400: an empty string asks to unset something that cannot be unset."""
    return StripeError(
        400,
        f"You passed an empty string for '{param}'. We assume empty values are an attempt to unset "
        f"a parameter; however '{param}' cannot be unset. You should remove '{param}' from your "
        "request or supply a non-empty value.",
        code="parameter_invalid_empty",
        param=param,
    )


def no_such(kind: str, object_id: str, param: str, *, in_path: bool) -> StripeError:
    """404 for an id in the path, 400 for an id in a parameter, as Stripe answers."""
    noun = _NOUNS.get(kind, kind)
    return StripeError(
        404 if in_path else 400,
        f"No such {noun}: '{object_id}'",
        code="resource_missing",
        param=param,
    )


def refused(message: str, *, code: str | None = None, param: str | None = None) -> StripeError:
    """400: understood, and not possible in the present state."""
    return StripeError(400, message, code=code, param=param)
