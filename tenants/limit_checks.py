"""Whether a limit can be: which kinds have which windows, how much, and for whom."""

from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any, get_args

from meterplane.contracts import policy as contract
from meterplane.contracts.usage import Surface
from meterplane.kernel.errors import CallerError

AMOUNT_MAX = 10**18  # a billion of the currency in nano; a quintillion tokens
RATE_MAX = 10**9  # requests or tokens a second: below it a microsecond's fraction is told apart
IP_RANGES_MAX = 100
MODEL_NAME_MAX = 128
MODELS_MAX = 1000
TOKENS_MAX = 2**31 - 1


def refuse(field: str, message: str) -> CallerError:
    """What a limit that cannot be is told."""
    return CallerError("limit_invalid", message, field=field)


def checked_limit(
    *, level: str, kind: str, window: str, amount: int | None, burst: int | None, mode: str,
    model: str,
) -> None:  # fmt: skip
    """Raises `CallerError` naming the field that is wrong."""
    if level not in get_args(contract.LimitLevel):
        raise refuse("level", f"Choose one of {', '.join(get_args(contract.LimitLevel))}.")
    windows = {str(each): allowed for each, allowed in contract.WINDOWS.items()}.get(kind)
    if windows is None:
        raise refuse("kind", f"Choose one of {', '.join(contract.WINDOWS)}.")
    if window not in windows:
        raise refuse("window", f"A limit of {kind} is per {' or '.join(windows)}.")
    if window == "prepaid" and level != "organisation":
        raise refuse("level", "A prepaid balance is the organisation's.")
    if mode not in get_args(contract.LimitMode):
        raise refuse("mode", "Choose enforce or notify.")
    if (level == "key_model") != bool(model):
        raise refuse("model", "Name the model of a key_model limit, and of no other.")
    check_model_name("model", model)
    most = RATE_MAX * (60 if window == "minute" else 1)
    most = most if window in ("second", "minute") else AMOUNT_MAX
    if amount is not None and not 0 <= amount <= most:
        raise refuse("amount", f"Choose an amount of 0 to {most:,}.")
    if burst is not None and (kind != "requests" or window not in ("second", "minute")):
        raise refuse("burst", "Only requests per second and per minute have a burst.")
    if burst is not None and not 1 <= burst <= RATE_MAX:
        raise refuse("burst", f"Choose a burst of 1 to {RATE_MAX:,}.")


def check_model_name(field: str, name: str) -> None:
    """A name a model could have; whether one has it is another matter, and may change."""
    if any(each.isspace() for each in name) or len(name) > MODEL_NAME_MAX:
        raise refuse(
            field, f"A model's name has at most {MODEL_NAME_MAX} characters and no spaces."
        )


def checked_restriction(
    *,
    models: Sequence[str] | None,
    surfaces: Sequence[str] | None,
    ip_ranges: Sequence[str] | None,
    request_tokens_max: int | None,
) -> dict[str, Any]:
    """The same as it is stored, sorted and each once. Raises `CallerError` naming the field."""
    if models is not None and len(models) > MODELS_MAX:
        raise refuse("models", f"Name at most {MODELS_MAX:,} models.")
    for name in models or ():
        check_model_name("models", name)
    known = get_args(Surface)
    for surface in surfaces or ():
        if surface not in known:
            raise refuse("surfaces", f"{surface[:40]!r} is none of {', '.join(known)}.")
    if request_tokens_max is not None and not 1 <= request_tokens_max <= TOKENS_MAX:
        raise refuse("request_tokens_max", f"Allow 1 to {TOKENS_MAX:,} tokens per request.")
    return {
        "models": None if models is None else sorted(set(models)),
        "surfaces": None if surfaces is None else sorted(set(surfaces)),
        "ip_ranges": None if ip_ranges is None else checked_ip_ranges(ip_ranges),
        "request_tokens_max": request_tokens_max,
    }


def checked_ip_ranges(ip_ranges: Sequence[str]) -> list[str]:
    """The ranges as they are compared: networks without host bits."""
    if len(ip_ranges) > IP_RANGES_MAX:
        raise refuse("ip_ranges", f"Give at most {IP_RANGES_MAX} ranges.")
    found = []
    for each in ip_ranges:
        try:
            found.append(str(ip_network(each.strip(), strict=False)))
        except ValueError:
            raise refuse(
                "ip_ranges", f"{each[:50]!r} is no address and no range like 203.0.113.0/24."
            ) from None
    return sorted(set(found))
