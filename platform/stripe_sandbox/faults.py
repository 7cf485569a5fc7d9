"""Faults on demand: what a network and a busy Stripe can do to a caller, at calls of one's choice.

A rule names a kind, a path pattern (`*` stands for anything), perhaps a verb, and when it
strikes: the next `times` matching calls after skipping `after`, or with a `probability` drawn from
a `seed`, so that a run can be repeated. Rules live in memory: a restart has none.

    drop_before       the connection closes; nothing was done
    drop_after        it was done and kept; the connection closes without an answer
    timeout_after     it was done and kept; no answer for `delay_ms`, then the connection closes
    reset_mid_body    it was done and kept; half the answer arrives, then a reset
    error_500         500, nothing done, nothing stored: the same key may be tried again
    error_500_stored  500, nothing done, and stored under the key: the same key replays it
    error_500_after   it was done and kept; 500, stored under the key: the same key replays it
    conflict_409      409 `idempotency_key_in_use`; nothing done
    rate_limit        429 `rate_limit`, without `Stripe-Should-Retry`
    rate_limit_retry  429 with `Stripe-Should-Retry: true`
    rate_limit_final  429 with `Stripe-Should-Retry: false`
    slow              the answer waits `delay_ms`; otherwise all is well
    webhook_first     the answer waits until its webhooks were tried, at most `delay_ms`
"""

import asyncio
import contextlib
import fnmatch
import itertools
import random
import socket
import struct
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from stripe_sandbox.errors import StripeError

BEFORE = ("drop_before", "error_500", "conflict_409", "rate_limit", "rate_limit_retry",
          "rate_limit_final", "slow")  # fmt: skip
AFTER = ("drop_after", "timeout_after", "reset_mid_body", "webhook_first")
STORED = ("error_500_stored", "error_500_after")  # the key's answer is the 500
KINDS = (*BEFORE, *STORED, *AFTER)

MAX_RULES = 100
MAX_DELAY_MS = 600_000
DEFAULT_DELAY_MS = {"timeout_after": 120_000, "slow": 2_000, "webhook_first": 5_000}

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass(slots=True)
class Rule:
    """One fault and when it strikes."""

    id: int
    kind: str
    path: str
    method: str | None = None
    times: int | None = None
    after: int = 0
    probability: float = 1.0
    seed: int = 0
    delay_ms: int = 0
    struck: int = 0
    _chance: random.Random = field(default_factory=random.Random, repr=False)

    def __post_init__(self) -> None:
        self._chance.seed(self.seed)
        self.delay_ms = self.delay_ms or DEFAULT_DELAY_MS.get(self.kind, 0)

    def strikes(self, method: str, path: str) -> bool:
        """Whether this call is hit; counts it."""
        if self.method not in (None, method) or not fnmatch.fnmatchcase(path, self.path):
            return False
        if self.times is not None and self.struck >= self.times:
            return False
        if self.after > 0:
            self.after -= 1
            return False
        if self._chance.random() >= self.probability:
            return False
        self.struck += 1
        return True

    def shown(self) -> dict[str, Any]:
        """For the control door."""
        names = ("id", "kind", "path", "method", "times", "after", "probability", "seed")
        return {name: getattr(self, name) for name in (*names, "delay_ms", "struck")}


class Faults:
    """The rules of this process, first match first."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._ids = itertools.count(1)

    def add(self, **fields: Any) -> Rule:
        """Add a rule; its fields have been checked."""
        rule = Rule(id=next(self._ids), **fields)
        self._rules.append(rule)
        return rule

    def clear(self) -> None:
        """Peace."""
        self._rules.clear()

    def rules(self) -> list[Rule]:
        """All of them, in order."""
        return list(self._rules)

    def pick(self, method: str, path: str) -> Rule | None:
        """The rule that strikes this call."""
        return next((rule for rule in self._rules if rule.strikes(method, path)), None)


def refusal(rule: Rule) -> tuple[StripeError, dict[str, str]] | None:
    """The error a rule answers instead of what the act would have, with its headers."""
    if rule.kind in ("error_500", *STORED):
        return StripeError(500, "An unknown error occurred (on demand).", kind="api_error"), {}
    if rule.kind == "conflict_409":
        return StripeError(
            409,
            "There is currently another in-progress request using this Idempotent Key (on demand).",
            kind="idempotency_error",
            code="idempotency_key_in_use",
        ), {}
    if rule.kind.startswith("rate_limit"):
        retry = {"rate_limit_retry": "true", "rate_limit_final": "false"}.get(rule.kind)
        return too_many(), {} if retry is None else {"Stripe-Should-Retry": retry}
    return None


def too_many() -> StripeError:
    """429."""
    return StripeError(
        429,
        "Request rate limit exceeded. Learn more about rate limits at "
        "https://stripe.com/docs/rate-limits.",
        code="rate_limit",
    )


def exposed(app: Callable[[_Scope, _Receive, _Send], Awaitable[None]]) -> Any:
    """The application, with the server's transport where a fault can reach it."""

    async def outer(scope: _Scope, receive: _Receive, send: _Send) -> None:
        scope["sandbox.transport"] = getattr(getattr(send, "__self__", None), "transport", None)
        await app(scope, receive, send)

    return outer


async def hang_up(request: Request, *, reset: bool = False) -> Response:
    """Close the connection under the caller. What is returned reaches nobody."""
    transport = request.scope.get("sandbox.transport")
    if transport is None:
        raise RuntimeError("this server does not show its transport: faults cannot drop it")
    if reset:
        with contextlib.suppress(OSError):
            linger = struct.pack("ii", 1, 0)  # close by RST instead of FIN
            transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, linger
            )
    transport.abort()
    await asyncio.sleep(0.01)  # until the server has noticed
    return Response(status_code=500)


async def after(rule: Rule, request: Request, answer: Response) -> Response:
    """What happens to an answer whose work is done and kept."""
    if rule.kind == "drop_after":
        return await hang_up(request)
    if rule.kind == "timeout_after":
        await asyncio.sleep(rule.delay_ms / 1000)
        return await hang_up(request)
    if rule.kind == "reset_mid_body":
        body = bytes(answer.body)
        head = (
            f"HTTP/1.1 {answer.status_code} OK\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        transport = request.scope["sandbox.transport"]
        transport.write(head.encode() + body[: len(body) // 2])
        await asyncio.sleep(0.05)  # a reset overtakes what has not been read
        return await hang_up(request, reset=True)
    return answer
