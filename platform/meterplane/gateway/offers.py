"""From a request and a policy to what may serve it: the model asked for, then its fallbacks.

Guarantees: the reservation covers whichever of them serves in the end. A fallback the key may not
use, or that does not speak the request's surface or cannot take what it asks, is not one.
"""

import random
from collections.abc import Callable, Collection

from meterplane.contracts.policy import KeyPolicy, ModelPolicy
from meterplane.contracts.serving import ModelServing, Target
from meterplane.contracts.usage import ServiceTier
from meterplane.gateway import errors
from meterplane.gateway.prompts import Prompts
from meterplane.gateway.servings import Servings
from meterplane.gateway.surface import Bounds, Offer, Work
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
        "_cost_nano",
        "_policy",
        "_prompts",
        "_servings",
        "_speaks",
        "bounds",
        "offers",
        "tier",
        "work",
    )

    def __init__(
        self,
        work: Work,
        tier: ServiceTier,
        servings: Servings,
        speaks: Speaks,
        prompts: Prompts,
    ) -> None:
        self.work = work
        self.tier = tier
        self.offers: list[Offer] = []
        self.bounds: list[Bounds] = []
        self._servings = servings
        self._prompts = prompts
        self._speaks = speaks
        self._policy: KeyPolicy | None = None
        self._cost_nano = 0

    def cost_nano(self, policy: KeyPolicy) -> int:
        """The reservation under this policy: the dearest of what may serve.

        Raises `CallerError` 404, or 400 for what the model does not take; `ServingUnread`.
        """
        if policy is not self._policy:
            self._bound(self._choose(policy))
            self._cost_nano = max(
                offer.cost_nano_max(bounds)
                for offer, bounds in zip(self.offers, self.bounds, strict=True)
            )
            self._policy = policy
        return self._cost_nano

    def _bound(self, offers: list[Offer]) -> None:
        """Keep what can take the request: the model asked for, and fallbacks that do."""
        self.offers, self.bounds = offers[:1], [self.work.bounds(offers[0])]
        for offer in offers[1:]:
            try:
                self.bounds.append(self.work.bounds(offer))
            except (CallerError, WorldError):
                continue
            self.offers.append(offer)

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
        prices = model.prices if self.tier == "standard" else model.batch_prices
        if prices is None:
            raise errors.batch_not_offered(model)
        return Offer(model, self._serving(policy, model), prices, self._prompts)

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
