"""Learn from a week of usage how long answers are that nobody bounded, and what requests over-hold.

Guarantees: run any number of times, by any number of workers, it leaves what the last week says.
Policies are compiled again only where a model that reserves by history needs another bound.

The problem with a percentile of what was used: an answer that was cut at the bound says only that
it would have been longer. Counted as if it had ended there, it teaches that answers are short; the
next bound is lower, cuts more, and never comes back up. The options: raise the bound by a factor
whenever many were cut (it swings), keep some requests unbounded to learn from (a reservation that
is not held to). The choice is the product-limit estimate of Kaplan and Meier (1958), which is for
observations that were cut off: such an answer counts among those at risk up to where it was cut,
and not after. Its limit: where more than 1 % of what is known was cut before it ended, there is no
99th percentile; then the model's own bound holds, and what it lets through is learned from.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from django.db import connection

from meterplane.catalog.models import Model, OverHold
from meterplane.catalog.sync import lock_catalog
from meterplane.kernel import clock
from meterplane.metering.reservations import (
    AnswersOfLength,
    Held,
    answer_lengths,
    held_by_model,
)
from meterplane.policy.compile import recompile_everyone
from tenants.scoping import system_scope

PERIOD = timedelta(days=7)
ANSWERS_MIN = 200  # two of them are longer than their 99th percentile
LONGER_THAN_P99 = Decimal("0.01")
SURVIVAL_DIGITS = 12  # what rounding of a product of some thousand ratios is below
TOKENS_STEP = 16  # rounded up to it; also the least there is
MOVED_PERCENT_MIN = 10  # a bound that moves less is not worth compiling every policy
# Of each of two statements; both are below the task's limit. 420,000 events took 3 s on a busy
# two-core machine: a week of some thirty million can be read. Beyond that what was learned stays.
READING_TIMEOUT = "240s"


def learn_reservations() -> int:
    """Read the last week, store what it says; returns how many models' bounds changed for it."""
    until = clock.now()
    since = until - PERIOD
    with system_scope("what all requests of a week held and needed"):
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('statement_timeout', %s, true)", [READING_TIMEOUT])
        held, lengths = held_by_model(since, until), answer_lengths(since, until)
    with system_scope("bounds learned from a week of usage"):
        lock_catalog()
        catalog = {model.name: model for model in Model.objects.select_for_update()}
        _store_over_holds(catalog, held, since, until)
        moved = [
            model.name
            for model in catalog.values()
            if _store_learned(model, lengths.get(model.name, ()), until)
            and model.reserve == Model.Reserve.HISTORY
        ]
        if moved:
            recompile_everyone()  # in this transaction: what is stored is what is compiled
    return len(moved)


def output_tokens_p99(lengths: Sequence[AnswersOfLength]) -> int | None:
    """The least number of output tokens that 99 % of answers do not exceed, rounded up.

    `lengths` are in ascending order. None where fewer than `ANSWERS_MIN` finished, or where so many
    were cut that it is not known.
    """
    if sum(each.finished for each in lengths) < ANSWERS_MIN:
        return None
    at_risk = sum(each.answers for each in lengths)
    longer = Decimal(1)
    for each in lengths:
        longer *= Decimal(at_risk - each.ended) / at_risk
        if round(longer, SURVIVAL_DIGITS) <= LONGER_THAN_P99:
            return max(TOKENS_STEP, -(-each.tokens_out // TOKENS_STEP) * TOKENS_STEP)
        at_risk -= each.answers
    return None


def _store_learned(model: Model, lengths: Sequence[AnswersOfLength], learned_at: datetime) -> bool:
    """Whether the bound moved by enough to be another."""
    before, learned = model.output_tokens_learned, output_tokens_p99(lengths)
    moved = before != learned
    if before is not None and learned is not None:
        moved = abs(learned - before) * 100 > before * MOVED_PERCENT_MIN
    if moved:
        model.output_tokens_learned = learned
    model.answers_learned_from = sum(each.finished for each in lengths)
    model.learned_at = learned_at
    model.save(update_fields=["output_tokens_learned", "answers_learned_from", "learned_at"])
    return moved


def _store_over_holds(
    catalog: dict[str, Model], held: Sequence[Held], since: datetime, until: datetime
) -> None:
    """Usage of a name the catalog does not have any more is nobody's to publish."""
    OverHold.objects.all().delete()
    OverHold.objects.bulk_create(
        OverHold(
            model=catalog[each.model],
            currency=each.currency,
            since=since,
            until=until,
            requests=each.requests,
            reserved_nano=each.reserved_nano,
            cost_nano=each.cost_nano,
            p50_nano=each.over_hold_p50_nano,
            p95_nano=each.over_hold_p95_nano,
        )
        for each in held
        if each.model in catalog
    )
