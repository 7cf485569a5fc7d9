"""What a model's requests held in budgets, in words: lines of its page."""

from collections.abc import Sequence

from meterplane.catalog.models import Model, OverHold
from meterplane.console import shown
from meterplane.policy.learn import ANSWERS_MIN


def learned_in_words(model: Model) -> str:
    """What history says of answers nobody bounded, or why it says nothing yet."""
    if model.learned_at is None:
        return "Nothing yet: history is read once an hour."
    answers = f"{model.answers_learned_from:,} answers without a bound of their own"
    if model.output_tokens_learned is None:
        return f"Not known from {answers}: {ANSWERS_MIN} are needed, fewer than 1 % of them cut."
    return f"99 % need at most {model.output_tokens_learned:,} tokens, by {answers}."


def over_hold_in_words(found: Sequence[OverHold]) -> str:
    """A sentence a currency."""
    if not found:
        return "No requests in the last seven days."
    return " ".join(map(_sentence, found))


def _sentence(each: OverHold) -> str:
    mean, half, most = (
        shown.nano(amount, each.currency)
        for amount in (each.mean_nano, each.p50_nano, each.p95_nano)
    )
    ratio = each.held_per_cost
    whole = "They cost nothing." if ratio is None else f"Held in all: {ratio} times what they cost."
    return (
        f"{each.requests:,} requests up to {shown.utc(each.until)}: {mean} a request on average,"
        f" half of them at most {half}, 95 % at most {most}. {whole}"
    )
