"""HTTP in front of the acts: identity of the request, the door, forms, replay, errors.

Order for every API call: Request-Id, key and version, route, claim of the idempotency key, body,
then in one transaction replay or validation and execution. A key is claimed when its headers
arrive and freed when its answer is ready; a second request meanwhile gets 409.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from stripe_sandbox import (
    API_VERSION,
    access,
    clock,
    control,
    faults,
    forms,
    hosted,
    idempotency,
    ids,
    pages,
    settings,
    test_clocks,
)
from stripe_sandbox.background import Background
from stripe_sandbox.call import Answer, Call
from stripe_sandbox.errors import StripeError
from stripe_sandbox.expand import expanded
from stripe_sandbox.rate_limits import RateLimits
from stripe_sandbox.routes import ENDPOINTS, Endpoint
from stripe_sandbox.store import Ledger, Store

MAX_BODY_BYTES = 8 * 1024 * 1024  # 250 lines x (500 + 50 x 540 characters) is 6.9 MB at worst

log = logging.getLogger("stripe_sandbox")


@dataclass(frozen=True, slots=True)
class Settings:
    """How one sandbox is run."""

    base_url: str
    key: str | None = None
    retry_ms: int = 1_000


def create_app(run_with: Settings, ledger: Ledger) -> Starlette:
    """The ASGI application over an open ledger, which it closes at its end."""
    sandbox = Sandbox(run_with, ledger)
    routes = [
        Route("/healthz", sandbox.healthz),
        *hosted.ROUTES,
        *control.ROUTES,
        *(
            Route(endpoint.path, sandbox.api(endpoint), methods=[endpoint.method])
            for endpoint in ENDPOINTS
        ),
    ]
    app = Starlette(
        routes=_get_without_head(routes),
        lifespan=sandbox.lifespan,
        exception_handlers={HTTPException: sandbox.gap, StripeError: pages.turned_away},
    )
    app.state.sandbox = sandbox
    return app


def _get_without_head(routes: list[Route]) -> list[Route]:
    for route in routes:
        if route.methods is not None and route.path.startswith("/v1/"):
            route.methods.discard("HEAD")
    return routes


class Sandbox:
    """State of the running process: the ledger, the background, the keys in flight."""

    def __init__(self, run_with: Settings, ledger: Ledger) -> None:
        self.settings = run_with
        self.ledger = ledger
        self.faults = faults.Faults()
        self.limits = RateLimits()
        self._in_flight: set[str] = set()
        self.background: Background

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        clock.set_offset_s(
            await self.ledger.run(lambda store: settings.read(store, "clock_offset_s"))
        )
        self.background = Background(self.ledger, self.settings.base_url, self.settings.retry_ms)
        self.background.start()
        try:
            yield
        finally:
            await self.background.stop()
            self.ledger.close()

    async def healthz(self, request: Request) -> Response:
        """Ready when the store answers."""

        def count(store: Store) -> int:
            row = store.connection.execute(
                "SELECT count(*) FROM delivery WHERE state = 'pending'"
            ).fetchone()
            return int(row[0])

        pending = await self.ledger.run(count)
        body = {
            "status": "ok",
            "mode": "sandbox",
            "api_version": API_VERSION,
            "pending_webhooks": pending,
        }
        return Response(json.dumps(body), media_type="application/json")

    async def gap(self, request: Request, refused: Exception) -> Response:
        """Nothing is simulated at this address: Stripe's 404, and a line that names the gap."""
        request_id = ids.new("req", 14)
        try:
            self._enter(request)
        except StripeError as turned_away:
            return self._answer(request_id, turned_away.status, turned_away.body())
        log.warning("gap: %s %s is not simulated", request.method, request.url.path)
        error = StripeError(
            404,
            f"Unrecognized request URL ({request.method}: {request.url.path}). The sandbox does "
            "not simulate it. If you are trying to list objects, remove the trailing slash. If you "
            "are trying to retrieve an object, make sure you passed a valid (non-empty) id.",
        )
        return self._answer(request_id, error.status, error.body())

    def api(self, endpoint: Endpoint) -> Callable[[Request], Any]:
        """The handler of one endpoint."""

        async def handle(request: Request) -> Response:
            request_id = ids.new("req", 14)
            try:
                self._enter(request)
                await self._count(endpoint)
                rule = self.faults.pick(endpoint.method, request.url.path)
                if rule is None:
                    return await self._keyed(endpoint, request, request_id, None)
                return await self._faulty(rule, endpoint, request, request_id)
            except StripeError as error:
                if error.code == "parameter_unknown":
                    log.warning(
                        "gap: %s %s does not take %s here",
                        endpoint.method,
                        endpoint.path,
                        error.param,
                    )
                return self._answer(request_id, error.status, error.body())
            except Exception:
                log.exception("%s %s failed", endpoint.method, endpoint.path)
                return self._answer(request_id, 500, _OUR_FAULT.body())

        return handle

    async def _keyed(
        self, endpoint: Endpoint, request: Request, request_id: str, rule: faults.Rule | None
    ) -> Response:
        """Perform it, holding its idempotency key meanwhile."""
        key = request.headers.get("idempotency-key")
        if endpoint.method != "POST" or key is None:
            return await self._perform(endpoint, request, request_id, None, rule)
        idempotency.check_key(key)
        if key in self._in_flight:
            raise idempotency.in_use(key)
        self._in_flight.add(key)
        try:
            return await self._perform(endpoint, request, request_id, key, rule)
        finally:
            self._in_flight.discard(key)

    async def _faulty(
        self, rule: faults.Rule, endpoint: Endpoint, request: Request, request_id: str
    ) -> Response:
        """The call with a fault on it, before or after its work."""
        log.warning("fault %s at %s %s", rule.kind, endpoint.method, request.url.path)
        if rule.kind == "drop_before":
            return await faults.hang_up(request)
        if rule.kind == "slow":
            await asyncio.sleep(rule.delay_ms / 1000)
        instead = faults.refusal(rule)
        if instead is not None and rule.kind not in faults.STORED:
            error, headers = instead
            return self._answer(request_id, error.status, error.body(), headers)
        answer = await self._keyed(endpoint, request, request_id, rule)
        if rule.kind == "webhook_first":
            await self.background.told(request_id, rule.delay_ms)
        return await faults.after(rule, request, answer)

    async def _count(self, endpoint: Endpoint) -> None:
        limited = await self.ledger.run(lambda store: settings.read(store, "rate_limit"))
        name = f"{endpoint.method} {endpoint.path}"
        if not self.limits.allow(name, limited=bool(limited)):
            raise faults.too_many()

    def _enter(self, request: Request) -> None:
        if not access.host_is_local(request.headers):
            raise StripeError(403, "The sandbox answers to names of this machine only.")
        access.check(request.headers, self.settings.key)

    async def _perform(
        self,
        endpoint: Endpoint,
        request: Request,
        request_id: str,
        key: str | None,
        rule: faults.Rule | None,
    ) -> Response:
        form = request.url.query if endpoint.method == "GET" else await _body(request)
        raw = forms.decode(form)
        asked = idempotency.fingerprint(endpoint.method, request.url.path, form)
        now = clock.now_s()

        def act(store: Store) -> tuple[idempotency.Saved, bool]:
            with store.transaction():
                if key is not None:
                    saved = idempotency.replay(store, key, asked, now)
                    if saved is not None:
                        return saved, True
                params = endpoint.takes.read(raw)
                call = Call(
                    store=store,
                    now=now,
                    base_url=self.settings.base_url,
                    request_id=request_id,
                    idempotency_key=key,
                    path=request.path_params,
                    params=params,
                )
                answer = _answered(rule, endpoint, test_clocks.placed(call, endpoint.path))
                result = idempotency.Saved(request_id, answer.status, answer.body)
                if key is not None:
                    idempotency.save(store, key, asked, result, now)
                return result, False

        result, replayed = await self.ledger.run(act)
        self.background.wake()
        extra = {}
        if key is not None:
            extra["Idempotency-Key"] = key.encode("ascii", "replace").decode()
            extra["Original-Request"] = result.request_id
        if replayed:
            extra["Idempotent-Replayed"] = "true"
        return self._answer(request_id, result.status, result.body, extra)

    def _answer(
        self,
        request_id: str,
        status: int,
        body: dict[str, Any],
        extra: dict[str, str] | None = None,
    ) -> Response:
        headers = {
            "Request-Id": request_id,
            "Stripe-Version": API_VERSION,
            "Cache-Control": "no-cache, no-store",
            **(extra or {}),
        }
        return Response(json.dumps(body), status, headers=headers, media_type="application/json")


_OUR_FAULT = StripeError(500, "The sandbox has a bug; its log has the details.", kind="api_error")


def execute(endpoint: Endpoint, call: Call) -> Answer:
    """Run the act; what it raises undoes it and becomes the answer, which is kept for replay."""
    try:
        with call.store.attempt():
            made = endpoint.act(call)
            answer = made if isinstance(made, Answer) else Answer(200, made)
            if answer.status == 200:
                expanded(call, answer.body, call.params.get("expand", ()))
            return answer
    except StripeError as error:
        return Answer(error.status, error.body())
    except Exception:
        log.exception("%s %s failed", endpoint.method, endpoint.path)
        return Answer(500, _OUR_FAULT.body())


def _answered(rule: faults.Rule | None, endpoint: Endpoint, call: Call) -> Answer:
    """The act's answer, or the 500 kept for replay in its place: before the act, or after it."""
    refusal = faults.refusal(rule) if rule and rule.kind in faults.STORED else None
    if rule is None or refusal is None:
        return execute(endpoint, call)
    if rule.kind == "error_500_after":
        execute(endpoint, call)
    return Answer(refusal[0].status, refusal[0].body())


async def _body(request: Request) -> str:
    """The form of a request, bounded; DELETE may carry its parameters in the query."""
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > MAX_BODY_BYTES:
                raise StripeError(413, f"The request body exceeds {MAX_BODY_BYTES} bytes.")
            chunks.append(chunk)
    except ClientDisconnect:
        raise StripeError(400, "The request ended before its body was complete.") from None
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if size and kind != "application/x-www-form-urlencoded":
        raise StripeError(
            400,
            f"Invalid request (check that your POST content type is application/x-www-form-"
            f"urlencoded). Got {kind[:60]}.",
        )
    try:
        text = b"".join(chunks).decode()
    except UnicodeDecodeError:
        raise StripeError(400, "The request body is not valid UTF-8.") from None
    return text or request.url.query
