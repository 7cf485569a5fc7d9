"""One request with its answer, and whether Stripe could have had it.

A request that Stripe would not take must have been refused, by us or by the sandbox: then it is
what the test is about. An address that Stripe does not have must be answered 404. Everything
answered must have the shape Stripe gives it, refusals included.
"""

import json
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from tests.stripe_schema.answers import Answers
from tests.stripe_schema.kinds import Kinds
from tests.stripe_schema.operations import Operation, Operations
from tests.stripe_schema.requests import UNKNOWN, Requests
from tests.stripe_schema.sources import Sources

HEADERS = ("request-id", "stripe-version")


@dataclass(frozen=True, slots=True)
class Exchange:
    """What went over the wire. `target` is path and query; header names are lower case."""

    method: str
    target: str
    body: str
    status: int
    headers: dict[str, str]
    answer: str

    @property
    def is_api(self) -> bool:
        """Whether it was meant for the API, and not for a page or a switch of the sandbox."""
        return self.target.startswith(("/v1/", "/v2/"))


class Schema:
    """The installed package as a judge; `installed()` gives the one everybody shares."""

    def __init__(self, sources: Sources) -> None:
        self.kinds = Kinds(sources)
        self.operations = Operations(sources, self.kinds)
        self.answers = Answers(self.kinds, self.operations)
        self.requests = Requests(self.kinds, self.operations, self.answers)

    def check_request(self, method: str, target: str, body: str = "") -> list[str]:
        """What Stripe would not take; empty when it would."""
        address = urlsplit(target)
        operation = self.operations.find(method, address.path)
        if operation is None:
            return [f"{method} {address.path} does not exist"]
        return self.requests.complaints(operation, address.query, body)

    def check_response(self, method: str, target: str, status: int, answer: Any) -> list[str]:
        """What Stripe would not say; empty when it could."""
        operation = self.operations.find(method, urlsplit(target).path)
        if operation is None:
            found = self.answers.of_error(answer) if status >= 400 else []
            return found if status == 404 or found else [f"answered {status} instead of 404"]
        return self.answers.complaints(operation, status, answer)

    def check(self, exchange: Exchange) -> list[str]:
        """Complaints about a whole exchange, each with its call."""
        method, target = exchange.method, exchange.target
        found = [f"no {name} header" for name in HEADERS if not exchange.headers.get(name)]
        try:
            answer = json.loads(exchange.answer)
        except ValueError:
            return self._placed(exchange, [*found, "the answer is not JSON"])
        found += self.check_response(method, target, exchange.status, answer)
        wrong = self.check_request(method, target, exchange.body)
        if exchange.status < 400:
            found += [f"took {each}" for each in wrong]
        elif exchange.status == 400 and all(each.endswith(UNKNOWN) for each in wrong):
            found += _not_refused_as_unknown(answer, wrong)
        return self._placed(exchange, found)

    def check_event(self, body: str) -> list[str]:
        """Complaints about an event as an endpoint receives it."""
        event = json.loads(body)
        kind = event.get("type") if isinstance(event, dict) else None
        return [f"event {kind}: {each}" for each in self.answers.of_event(event)]

    def _placed(self, exchange: Exchange, found: list[str]) -> list[str]:
        operation: Operation | str | None = self.operations.find(
            exchange.method, urlsplit(exchange.target).path
        )
        where = operation or f"{exchange.method} {exchange.target}"
        return [f"{where} -> {exchange.status}: {each}" for each in found]


def _not_refused_as_unknown(answer: Any, wrong: list[str]) -> list[str]:
    """A parameter that Stripe does not know is refused as that, and not for another reason.

    What was refused without naming a parameter was not read so far: its key was in use, its body
    was no form or never ended.
    """
    error = answer.get("error", {})
    if error.get("param") is None or f"{error['param']}{UNKNOWN}" in wrong:
        return []
    return [f"refused because of {error['param']}, and not because {each}" for each in wrong]


@cache
def installed() -> Schema:
    """The judge read from the installed package, once per process."""
    return Schema(Sources())
