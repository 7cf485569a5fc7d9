"""From a request and a policy to what may serve it: the model asked for, then its fallbacks.

Guarantees: the reservation covers whichever of them serves in the end. A fallback the key may not
use, or that does not speak the request's surface or cannot take what it asks, is not one. A request
that names no bound of its output is given a smaller one where a limit leaves less (`fit.py`): what
an engine is told is what was reserved.
"""

import random
from collections.abc import Callable, Collection

from meterplane.contracts.policy import KeyPolicy, ModelPolicy
from meterplane.contracts.serving import ModelServing, Target
from meterplane.gateway import errors, fit
from meterplane.gateway.admission_commands import Worst
from meterplane.gateway.callers import Caller, check_allowed
from meterplane.gateway.prompts import Prompts
from meterplane.gateway.servings import Servings
from meterplane.gateway.surface import Bounds, Offer, Work
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError, WorldError

FALLBACKS_MAX = 3

Speaks = Callable[[str], Collection[str]]  # surface -> adapters that can answer it


class ServingUnread(Exception):
    """A policy names a serving that is not held; read it and try again."""

    def __init__(self, policy: KeyPolicy, model: ModelPolicy) -> None:
        super().__init__(model.name)
        self.policy = policy
        self.model = model


class Plan:
    """What may serve one request, under the policy it was last asked about."""

    __slots__ = (
        "_caller",
        "_cost_nano",
        "_policy",
        "_prompts",
        "_servings",
        "_speaks",
        "bounds",
        "model",
        "offers",
        "tier",
        "work",
    )

    def __init__(
        self,
        work: Work,
        caller: Caller,
        servings: Servings,
        speaks: Speaks,
        prompts: Prompts,
    ) -> None:
        self.work = work
        self.model = work.model
        self.tier = caller.tier
        self._caller = caller
        self.offers: list[Offer] = []
        self.bounds: list[Bounds] = []
        self._servings = servings
        self._prompts = prompts
        self._speaks = speaks
        self._policy: KeyPolicy | None = None
        self._cost_nano = 0

    def worst(self, policy: KeyPolicy) -> Worst:
        """The most the request can use under this policy, whichever model serves it.

        Raises what `cost_nano` raises; `CallerError` 403 where the key may not be used so.
        """
        check_allowed(policy, self.work.surface, self._caller)
        cost_nano = self.cost_nano(policy)
        return Worst(
            cost_nano,
            max(bounds.tokens_in_max for bounds in self.bounds),
            max(bounds.tokens_out_max for bounds in self.bounds),
        )

    def cost_nano(self, policy: KeyPolicy) -> int:
        """The reservation under this policy: the dearest of what may serve.

        Raises `CallerError` 404, or 400 for what the model does not take and for more tokens than
        one request of the key may have; `ServingUnread`.
        """
        if policy is not self._policy:
            self._policy = None  # what is refused below is not half of another policy's
            self._bound(self._choose(policy), policy)
            self._cost_nano = self._dearest_nano()
            self._policy = policy
        return self._cost_nano

    def fit(self, policy: KeyPolicy, room_nano: int) -> int | None:
        """Lower what may serve until it costs at most `room_nano`; the new reservation.

        A request that named no bound of its output is given fewer output tokens, at least
        `fit.FIT_TOKENS_MIN` an answer; fallbacks that are still too dear are left out. None, and
        nothing changed, where that is not enough. Holds until `cost_nano` is asked about another
        policy: under that one a budget may be another, so it is for the caller to fit again.
        Raises as `cost_nano` does.
        """
        cost_nano = self.cost_nano(policy)
        if cost_nano > room_nano:
            fitted = fit.within_room(self.offers, self.bounds, room_nano)
            if fitted is None:
                return None
            self.offers, self.bounds = fitted
            cost_nano = self._cost_nano = self._dearest_nano()
        return cost_nano

    def fits(self, policy: KeyPolicy, room_nano: int) -> bool:
        """Whether `fit` would have an answer. Changes nothing."""
        if self.cost_nano(policy) <= room_nano:
            return True
        return fit.within_room(self.offers, self.bounds, room_nano) is not None

    def header(self) -> bytes:
        """The bound of each answer, where it is ours and not the model's ordinary one."""
        offer, bounds = self.offers[0], self.bounds[0]
        ordinary = offer.output_tokens_fitted is None and offer.model.output_tokens_reserved is None
        if ordinary or not bounds.open_sequences:
            return b""
        return b"x-meterplane-output-tokens-max: %d\r\n" % fit.tokens_each(bounds)

    def _dearest_nano(self) -> int:
        return max(
            offer.cost_nano_max(bounds)
            for offer, bounds in zip(self.offers, self.bounds, strict=True)
        )

    def _bound(self, offers: list[Offer], policy: KeyPolicy) -> None:
        """Keep what can take the request: the model asked for, and fallbacks that do."""
        self.offers, self.bounds = [], []
        tokens_max, limits, now_ms = policy.request_tokens_max, policy.limits, clock.now_ms()
        for offer in offers:
            try:
                bounds = self.work.bounds(offer)
                if tokens_max is not None:
                    offer, bounds = fit.within_tokens(offer, bounds, tokens_max)
                offer, bounds = fit.within_limits(offer, bounds, limits, self.model, now_ms)
            except (CallerError, WorldError):
                if not self.offers:
                    raise
                continue
            self.offers.append(offer)
            self.bounds.append(bounds)

    async def read_serving(self, unread: ServingUnread) -> None:
        """Fetch what `cost_nano` missed. Raises `WorldError` when it cannot be read."""
        model = unread.model
        serving = await self._servings.find(model.name, model.serving_version)
        if serving is None:
            raise errors.serving_unknown(model.name)
        await self._prompts.make_ready(serving)

    def _choose(self, policy: KeyPolicy) -> list[Offer]:
        asked = policy.models.get(self.work.model)
        if asked is None:
            raise errors.model_not_found(self.work.model)
        if asked.adapter not in self._speaks(self.work.surface):
            raise errors.wrong_surface(asked)
        first = self._offer(policy, asked)
        offers = [first]
        for name in first.serving.fallbacks[:FALLBACKS_MAX]:
            model = policy.models.get(name)
            if model is not None and model.adapter in self._speaks(self.work.surface):
                try:
                    offers.append(self._offer(policy, model))
                except CallerError:
                    continue  # not offered in this tier
        return offers

    def _offer(self, policy: KeyPolicy, model: ModelPolicy) -> Offer:
        is_standard = self.tier == "standard"
        prices = model.prices if is_standard else model.batch_prices
        held = model.reserve_prices if is_standard else model.batch_reserve_prices
        if prices is None:
            raise errors.batch_not_offered(model)
        serving = self._serving(policy, model)
        return Offer(model, serving, prices, self._prompts, reserve_prices=held)

    def _serving(self, policy: KeyPolicy, model: ModelPolicy) -> ModelServing:
        if model.serving_version == 0:
            return plain_serving(model)
        serving = self._servings.held(model.name, model.serving_version)
        if serving is None or not self._prompts.ready(serving):
            raise ServingUnread(policy, model)
        return serving


def plain_serving(model: ModelPolicy) -> ModelServing:
    """A model under its upstream name on the gateway's own servers."""
    return ModelServing(name=model.name, version=0, targets=[Target(upstream=model.upstream)])


def targets_in_order(serving: ModelServing) -> list[Target]:
    """The targets to ask, the first drawn by weight; the rest only when it cannot be reached."""
    if len(serving.targets) == 1:
        return serving.targets
    left = [target for target in serving.targets if target.weight > 0]
    order: list[Target] = []
    while left:
        (chosen,) = random.choices(left, [target.weight for target in left])  # noqa: S311
        order.append(chosen)
        left.remove(chosen)
    return order
