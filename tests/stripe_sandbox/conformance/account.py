"""A Stripe account that scenarios run on: the sandbox's only one, or one of Stripe's test mode."""

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import pytest
import stripe

from tests.stripe_sandbox.conformance.deviations import DEVIATIONS, Deviation
from tests.stripe_schema import recording
from tests.stripe_schema.exchange import Exchange, installed

TOLD_WITHIN_S = 30.0
# What a deviation may look like from a test: refused, or not refused.
_DIFFERENT = (AssertionError, pytest.fail.Exception, stripe.InvalidRequestError)


class Overheard(stripe.RequestsClient):
    """The SDK's own transport; what Stripe's types do not allow is kept in `complaints`."""

    def __init__(self) -> None:
        super().__init__(timeout=(5, 30))
        self.complaints: list[str] = []

    def request(  # type: ignore[override]  # as RequestsClient has it
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        post_data: Any = None,
    ) -> tuple[Any, int, Mapping[str, str]]:
        body, status, said = super().request(method, url, headers, post_data)
        address = urlsplit(url)
        exchange = Exchange(
            method=method.upper(),
            target=address.path + (f"?{address.query}" if address.query else ""),
            body=post_data or "",
            status=status,
            headers={name.lower(): value for name, value in said.items()},
            answer=body if isinstance(body, str) else body.decode(),
        )
        self.complaints += installed().check(exchange)
        return body, status, said


class Account:
    """Short ways to the states that scenarios start from, through the SDK alone."""

    def __init__(
        self,
        key: str,
        base: str | None,
        hook_url: str,
        listed: Mapping[str, Deviation] = DEVIATIONS,
    ) -> None:
        self.is_stripe = base is None
        self.hook_url = hook_url
        self.run = uuid.uuid4().hex  # keys and addresses of this run alone
        self._key = key
        self._base = base
        self._listed = listed
        self._customers: list[str] = []
        self.heard = Overheard()
        self.client = self.client_with(key)

    def client_with(self, key: str) -> stripe.StripeClient:
        """The SDK with another key."""
        options: dict[str, Any] = {}
        if self._base is not None:
            names = ("api", "files", "connect", "meter_events")
            options["base_addresses"] = dict.fromkeys(names, self._base)
        return stripe.StripeClient(key, http_client=self.heard, max_network_retries=2, **options)

    @property
    def v1(self) -> Any:
        """The first API; untyped, since scenarios also send what the types forbid."""
        return self.client.v1

    def key(self, name: str) -> dict[str, Any]:
        """Options with an idempotency key of this run."""
        return {"idempotency_key": f"conformance:{self.run}:{name}"}

    def customer(self, card: str | None = "pm_card_visa", **fields: Any) -> str:
        """A customer, removed at the end, with a default card unless told otherwise."""
        made: str = self.v1.customers.create({"name": "Conformance", **fields}).id
        self._customers.append(made)
        if card is not None:
            self.default_card(made, card)
        return made

    def default_card(self, customer: str, card: str) -> str:
        """Attach a card and make it the default."""
        method: str = self.v1.payment_methods.attach(card, {"customer": customer}).id
        settings = {"invoice_settings": {"default_payment_method": method}}
        self.v1.customers.update(customer, settings)
        return method

    def draft(self, customer: str, *amounts: int) -> str:
        """A draft in US dollars that nothing advances by itself."""
        draft: str = self.v1.invoices.create(
            {
                "customer": customer,
                "currency": "usd",
                "auto_advance": False,
                "collection_method": "charge_automatically",
                "pending_invoice_items_behavior": "exclude",
            }
        ).id
        if amounts:
            lines = [{"amount": amount, "description": "Tokens"} for amount in amounts]
            self.v1.invoices.add_lines(draft, {"lines": lines})
        return draft

    def open(self, customer: str, *amounts: int) -> str:
        """A finalized invoice."""
        draft = self.draft(customer, *amounts)
        assert self.v1.invoices.finalize_invoice(draft, {"auto_advance": False}).status == "open"
        return draft

    def eventually(self, true: Callable[[], Any], what: str) -> None:
        """Poll, as Stripe's events may lag behind what they tell of."""
        deadline = time.monotonic() + TOLD_WITHIN_S
        while not true():
            assert time.monotonic() < deadline, f"{what} did not happen within {TOLD_WITHIN_S} s"
            time.sleep(1.0 if self.is_stripe else 0.01)

    @contextlib.contextmanager
    def deviation(self, name: str) -> Iterator[None]:
        """What is asserted inside holds at Stripe and fails here, as the list says."""
        known = self._listed[name]
        if self.is_stripe:
            yield
            return
        try:
            yield
        except _DIFFERENT as different:
            if known.here not in str(different):
                pytest.fail(f"{name} deviates in another way than listed: {different}")
        else:
            pytest.fail(f"{name} does not deviate any more: take it from the list")

    def excused(self, complaint: str) -> bool:
        """Whether this and nothing else was complained of until now; it is forgotten."""
        both = [self.heard.complaints[:], recording.complaints()]
        self.heard.complaints.clear()
        return all(len(said) == 1 and said[0].endswith(complaint) for said in both)

    def close(self) -> None:
        """Leave nothing that could still be collected, and say what was not as Stripe's types."""
        for endpoint in self.v1.webhook_endpoints.list({"limit": 100}).data:
            if self.run in endpoint.url:
                self.v1.webhook_endpoints.delete(endpoint.id)
        for customer in self._customers:
            with contextlib.suppress(stripe.InvalidRequestError):
                self.v1.customers.delete(customer)
        assert self.heard.complaints == []
