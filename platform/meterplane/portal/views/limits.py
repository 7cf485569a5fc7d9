"""Limits: what an organisation, its projects and keys may use, who says so, what is left."""

from dataclasses import dataclass
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_GET

from meterplane.kernel import amounts
from meterplane.policy.limits_shown import ShownLimit, ShownScope, shown_limits
from meterplane.portal.access import Acting, member_page, render_page
from tenants.models import ApiKey, Restriction
from tenants.queries import organisation

KINDS = {
    "requests": "Requests", "input_tokens": "Input tokens", "output_tokens": "Output tokens",
    "total_tokens": "Tokens", "concurrency": "Requests at once", "spend": "Spend",
}  # fmt: skip
WINDOWS = {
    "second": "per second", "minute": "per minute", "day": "per day", "week": "per week",
    "month": "per month", "lifetime": "in all", "at_once": "",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Card:
    """A scope with the limits that are shown together: a project's with those of its keys."""

    title: str
    what: str
    limits: list[dict[str, object]]


@require_GET
@member_page
def limits(request: HttpRequest, acting: Acting) -> HttpResponse:
    own = organisation()
    scopes = shown_limits(own)
    context = {
        "currency": own.currency,
        "plan": own.plan,
        "cards": _cards(scopes),
        "limit_count": sum(len(scope.limits) for scope in scopes),
        "restrictions": _restrictions(scopes),
    }
    return render_page(request, acting, "limits", "portal/limits/page.html", context)


def _cards(scopes: list[ShownScope]) -> list[Card]:
    """The organisation, then each project that has limits or whose keys have."""
    cards: dict[UUID | None, Card] = {}
    for scope in scopes:
        if scope.level != "key":
            what = "The organisation" if scope.level == "organisation" else "Project"
            cards[scope.project_id] = Card(scope.name, what, [])
        cards[scope.project_id].limits.extend(_row(each) for each in scope.limits)
    return [card for key, card in cards.items() if card.limits or key is None]


def _row(limit: ShownLimit) -> dict[str, object]:
    amount = limit.amount_now
    spent = limit.spent_nano
    whole = amount if amount else 1
    return {
        "limit": limit,
        "label": "Prepaid balance"
        if limit.window == "prepaid"
        else f"{KINDS[limit.kind]} {WINDOWS[limit.window]}".strip(),
        "key_name": limit.scope_name if limit.level in ("key", "key_model") else "",
        "amount": amount,
        "is_money": limit.kind == "spend",
        "spent_permille": None if spent is None else min(1000, spent * 1000 // whole),
        "percent": "" if spent is None or not amount else amounts.percent(spent, amount),
    }


def _restrictions(scopes: list[ShownScope]) -> list[dict[str, object]]:
    names = {scope.scope_id: scope.name for scope in scopes}
    names |= {key.id: key.name for key in ApiKey.objects.filter(status=ApiKey.Status.ACTIVE)}
    rows = Restriction.objects.order_by("level", "scope_id")
    return [
        {"row": row, "level": row.level, "name": names[row.scope_id]}
        for row in rows
        if row.scope_id in names
    ]
