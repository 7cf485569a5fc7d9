"""One run of the canary: ask, look, compare, tell. Its row says each step in a sentence.

Guarantees: one run at a time is under way, in the whole installation (a unique index); one whose
worker died is closed as failed by the next. A run that fails is logged as an error. The key's
secret is void when a run is over, and ten minutes after it began whatever happens.
"""

import logging
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError

from meterplane.catalog.models import Model
from meterplane.catalog.queries import active_models
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.metering.canary import chain
from meterplane.metering.canary.ask import Answered, Door, NoAnswer
from meterplane.metering.canary.tenant import Canary, provide_canary
from meterplane.metering.models import CanaryRun, UsageEvent
from tenants.keys import revoke_key
from tenants.scoping import system_scope

log = logging.getLogger(__name__)

MODELS_MAX = 8
DEAD_AFTER = timedelta(minutes=10)  # 8 answers of 30 s, 30 s of waiting, and some


class AlreadyRunning(Exception):
    """Another run is under way."""


class _Steps:
    """What was tried, in order."""

    def __init__(self) -> None:
        self.said: list[dict[str, object]] = []

    def note(self, name: str, faults: Sequence[str], well: str) -> None:
        """A step that passed, `well`, or the faults that it found."""
        self.said.append(
            {"name": name, "passed": not faults, "said": "; ".join(faults)[:2000] or well}
        )

    @property
    def passed(self) -> bool:
        return all(step["passed"] for step in self.said)


def run_canary() -> CanaryRun | None:
    """One run, stored; None where another is under way."""
    try:
        run = _begin()
    except AlreadyRunning:
        return None
    steps = _Steps()
    visible_after_ms: int | None = None
    try:
        visible_after_ms = _through_the_chain(steps)
    except (CallerError, WorldError, NoAnswer) as problem:
        steps.note("run", [str(problem)], "")
    except Exception:
        log.exception("the canary met what it does not know")
        steps.note("run", ["it met what it does not know: see the worker's log"], "")
    return _end(run, steps, visible_after_ms)


def _through_the_chain(steps: _Steps) -> int | None:
    canary = provide_canary()
    try:
        return _ask_and_look(canary, steps)
    finally:
        revoke_key(tenant_id=canary.tenant_id, key_id=canary.key_id)


def _ask_and_look(canary: Canary, steps: _Steps) -> int | None:
    door = Door(settings.PUBLIC_GATEWAY_URL, canary.secret)
    before = chain.stand(canary)
    answered = _ask(door, steps)
    if not answered:
        return None
    events, visible_after_ms = chain.events_of(canary, answered)
    steps.note(
        "events",
        chain.faults_of_events(answered, events),
        f"{len(events)} events say what the answers said, the last after {visible_after_ms} ms",
    )
    steps.note(
        "roll-ups",
        chain.faults_of_roll_ups(canary, before, events),
        "the hour and the day grew by exactly that",
    )
    _receipts(door, answered, steps)
    _triton(before, list(events.values()), steps)
    return visible_after_ms


def _ask(door: Door, steps: _Steps) -> list[Answered]:
    models = _models()
    if not models:
        steps.note("answers", ["no model is on offer"], "")
    answered, faults = [], []
    for model in models:
        try:
            answered.append(door.ask(model))
        except NoAnswer as problem:
            faults.append(f"{model.name}: {problem}")
    if models:
        names = ", ".join(each.model for each in answered)
        steps.note("answers", faults, f"{len(answered)} models answered: {names}")
    return answered


def _models() -> list[Model]:
    named = settings.CANARY_MODELS
    return [model for model in active_models() if not named or model.name in named][:MODELS_MAX]


def _receipts(door: Door, answered: list[Answered], steps: _Steps) -> None:
    faults = chain.faults_of_receipts(door, answered)
    if faults is not None:
        steps.note("receipts", faults, "each request has a receipt")


def _triton(before: chain.Before, events: list[UsageEvent], steps: _Steps) -> None:
    faults, looked_at = chain.faults_of_triton(before, events)
    if looked_at:
        steps.note("Triton", faults, "its own counters grew by at least that")


def _begin() -> CanaryRun:
    with system_scope("the canary begins"):
        stale = CanaryRun.objects.filter(finished_at=None, started_at__lt=clock.now() - DEAD_AFTER)
        for run in stale:
            _close(run.id, [{"name": "run", "passed": False, "said": "its worker died"}], False)
    try:
        with system_scope("the canary begins"):
            return CanaryRun.objects.create()
    except IntegrityError:
        raise AlreadyRunning from None


def _close(run_id: UUID, steps: list[dict[str, object]], passed: bool) -> None:
    CanaryRun.objects.filter(id=run_id, finished_at=None).update(
        finished_at=clock.now(), passed=passed, steps=steps
    )


def _end(run: CanaryRun, steps: _Steps, visible_after_ms: int | None) -> CanaryRun:
    with system_scope("the canary ends"):
        _close(run.id, steps.said, steps.passed)
        CanaryRun.objects.filter(id=run.id).update(visible_after_ms=visible_after_ms)
        run.refresh_from_db()
    if not run.passed:
        wrong = [f"{step['name']}: {step['said']}" for step in run.steps if not step["passed"]]
        log.error("the canary found metering at fault: %s", "; ".join(wrong))
    return run
