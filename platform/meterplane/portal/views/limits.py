"""Limits: what an organisation, its projects and keys may use, who says so, what is left."""

from dataclasses import dataclass
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_GET

from meterplane.kernel import amounts
from meterplane.metering import labels
from meterplane.policy.limits_shown import ShownLimit, ShownScope, shown_limits
from meterplane.policy.restrictions_shown import ShownRestriction, shown_restrictions
from meterplane.portal import limit_words
from meterplane.portal.access import Acting, member_page, render_page
from tenants.models import ApiKey
from tenants.queries import list_keys, organisation


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
        "restrictions": [_restriction(each) for each in shown_restrictions(own)],
        "restrict_url": reverse("portal:restriction-new"),
    }
    return render_page(request, acting, "limits", "portal/limits/page.html", context)


@require_GET
@member_page
def of_key(request: HttpRequest, acting: Acting, key_id: UUID) -> HttpResponse:
    """All that a key is held to: its own limits and restrictions, its project's, everybody's."""
    key = list_keys().filter(id=key_id, status=ApiKey.Status.ACTIVE).first()
    if key is None:
        raise Http404
    own = organisation()
    counted = {
        "organisation": own.id,
        "project": key.project_id,
        "key": key.limits_scope_id or key.id,
    }
    scopes = [each for each in shown_limits(own) if counted[each.level] == each.scope_id]
    itself = {"organisation": own.id, "project": key.project_id, "key": key.id}
    cards = [_card(scope) for scope in reversed(scopes)]
    context = {
        "key": key,
        "currency": own.currency,
        "plan": own.plan,
        "cards": cards,
        "restrictions": [
            _restriction(each)
            for each in shown_restrictions(own)
            if itself[each.level] == each.scope_id
        ],
        "restrict_url": f"{reverse('portal:restriction-new')}?scope=key:{key.id}",
    }
    return render_page(request, acting, "limits", "portal/limits/key.html", context)


def _card(scope: ShownScope) -> Card:
    what = {"organisation": "The organisation", "project": "Project", "key": "API key"}
    rows = [_row(each) | {"key_name": ""} for each in scope.limits]
    return Card(scope.name, what[scope.level], rows)


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
        "label": limit_words.label(limit.kind, limit.window),
        "key_name": limit.scope_name if limit.level in ("key", "key_model") else "",
        "amount": amount,
        "is_money": limit.kind == "spend",
        "spent_permille": None if spent is None else min(1000, spent * 1000 // whole),
        "percent": "" if spent is None or not amount else amounts.percent(spent, amount),
    }


def _restriction(said: ShownRestriction) -> dict[str, object]:
    surfaces = said.surfaces
    return {
        "row": said,
        "surfaces": None if surfaces is None else [labels.surface(each) for each in surfaces],
    }
