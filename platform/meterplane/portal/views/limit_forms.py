"""Set, change, raise and remove an organisation's own limits.

Owners and admins do. What they say only narrows what the operator says (`tenants.own_limits`). When
a page says that something holds, the gateways obey it; what a verb refuses is said at its field,
and nothing of it is stored.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods
from django_htmx.http import HttpResponseClientRedirect

from meterplane.catalog.queries import active_models
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.portal import limit_scopes, limit_words
from meterplane.portal.access import (
    Acting,
    member_action,
    render_dialog,
    require_limit_manager,
)
from meterplane.portal.limit_forms import AmountForm, LimitForm, RaiseForm
from tenants import limits as verbs
from tenants.models import ApiKey, Limit, SetBy
from tenants.own_limits import check_is_own
from tenants.queries import list_keys, organisation
from tenants.scoping import tenant_scope


@require_http_methods(["GET", "POST"])
@member_action
def new(request: HttpRequest, acting: Acting) -> HttpResponse:
    """Set a limit of a scope; one there already is of that name is replaced."""
    require_limit_manager(acting)
    with tenant_scope(acting.tenant_id):
        own = organisation()
        scopes = limit_scopes.scopes_of(own)
        form = LimitForm(
            request.POST or None,
            initial={"scope": request.GET.get("scope", "")},
            currency=own.currency,
            scopes=limit_scopes.choices(scopes),
            models=[model.name for model in active_models()],
        )
    if request.method == "POST" and form.is_valid():
        said = form.cleaned_data
        level, scope_id = limit_scopes.parsed(said["scope"])
        kind, _, window = said["what"].partition(":")

        def act() -> Limit:
            return verbs.set_limit(
                tenant_id=acting.tenant_id,
                level="key_model" if said["model"] else level,
                scope_id=scope_id,
                kind=kind,
                window=window,
                amount=said["amount"],
                mode=said["mode"],
                model=said["model"],
                by=SetBy.ORGANISATION,
            )

        amount = limit_words.amount(kind, said["amount"], own.currency)
        where = next(each.name for each in scopes if each.value == said["scope"])
        done = f"{limit_words.label(kind, window)} of {where}: {amount}"
        if answer := stored(request, acting, form.refuse, act, done, level, scope_id):
            return answer
    return _dialog(request, acting, "Set a limit", "new", {"form": form})


OwnLimitView = Callable[[HttpRequest, Acting, Limit, str], HttpResponse]


def own_limit(view: OwnLimitView) -> Callable[[HttpRequest, UUID], HttpResponseBase]:
    """A view of a limit that the organisation set, and of the currency of its spend.

    One of another organisation is missing, whatever one's role; of one that the operator set, it
    is said who can change it.
    """

    @member_action
    @wraps(view)
    def inside(request: HttpRequest, acting: Acting, limit_id: UUID) -> HttpResponse:
        with tenant_scope(acting.tenant_id):
            limit = Limit.objects.filter(id=limit_id).first()
            currency = organisation().currency
        if limit is None:
            raise Http404
        require_limit_manager(acting)
        try:
            check_is_own(limit)
        except CallerError as refused:
            told = {"message": refused.message}
            answer = _dialog(request, acting, "Not yours to change", "refused", told)
            answer.status_code = refused.status
            return answer
        return view(request, acting, limit, currency)

    return inside


@require_http_methods(["GET", "POST"])
@own_limit
def change(request: HttpRequest, acting: Acting, limit: Limit, currency: str) -> HttpResponse:
    """Another amount or mode of a limit of one's own."""
    form = AmountForm(
        request.POST or None,
        initial={"amount": limit_words.typed(limit.kind, limit.amount or 0), "mode": limit.mode},
        kind=limit.kind,
        currency=currency,
    )
    if request.method == "POST" and form.is_valid():

        def act() -> Limit:
            return verbs.set_limit(
                tenant_id=acting.tenant_id,
                level=limit.level,
                scope_id=limit.scope_id,
                kind=limit.kind,
                window=limit.window,
                amount=form.cleaned_data["amount"],
                mode=form.cleaned_data["mode"],
                model=limit.model,
                by=SetBy.ORGANISATION,
            )

        amount = limit_words.amount(limit.kind, form.cleaned_data["amount"], currency)
        done = f"{limit_words.label(limit.kind, limit.window)}: {amount}"
        where = (limit.level, limit.scope_id)
        if answer := stored(request, acting, form.refuse, act, done, *where):
            return answer
    context = _told(acting, limit, currency) | {"form": form}
    return _dialog(request, acting, "Change a limit", "change", context)


@require_http_methods(["GET", "POST"])
@own_limit
def increase(request: HttpRequest, acting: Acting, limit: Limit, currency: str) -> HttpResponse:
    """Let more hold until an instant, within what the operator allows."""
    form = RaiseForm(request.POST or None, kind=limit.kind, currency=currency)
    if request.method == "POST" and form.is_valid():
        amount, until = form.cleaned_data["amount"], form.cleaned_data["until"]

        def act() -> Limit:
            return verbs.raise_temporarily(
                tenant_id=acting.tenant_id,
                limit_id=limit.id,
                amount=amount,
                until=until,
                by=SetBy.ORGANISATION,
            )

        more = limit_words.amount(limit.kind, amount, currency)
        name = limit_words.label(limit.kind, limit.window)
        done = f"{name}: {more} until {until:%d %b %H:%M} UTC"
        where = (limit.level, limit.scope_id)
        if answer := stored(request, acting, form.refuse, act, done, *where):
            return answer
    context = _told(acting, limit, currency) | {"form": form}
    return _dialog(request, acting, "Raise a limit", "raise", context)


@require_http_methods(["GET", "POST"])
@own_limit
def remove(request: HttpRequest, acting: Acting, limit: Limit, currency: str) -> HttpResponse:
    """Ask, then remove: what the operator says holds on."""
    refusals: list[str] = []
    if request.method == "POST":

        def act() -> None:
            verbs.remove_limit(tenant_id=acting.tenant_id, limit_id=limit.id, by=SetBy.ORGANISATION)

        done = f"{limit_words.label(limit.kind, limit.window)} is removed"
        where = (limit.level, limit.scope_id)
        heard = refusals.append
        if answer := stored(request, acting, lambda said: heard(said.message), act, done, *where):
            return answer
    context = _told(acting, limit, currency) | {"refusals": refusals}
    return _dialog(request, acting, "Remove a limit", "remove", context)


def stored(
    request: HttpRequest,
    acting: Acting,
    refuse: Callable[[CallerError], None],
    act: Callable[[], object],
    done: str,
    level: str,
    scope_id: UUID,
) -> HttpResponse | None:
    """Do it and go to where it is shown; None where it was refused."""
    try:
        act()
    except CallerError as refused:
        refuse(refused)
        return None
    except WorldError:
        messages.error(request, f"{done}. Not every gateway knows yet: say it again.")
    else:
        messages.success(request, f"{done}. In force since {clock.now():%H:%M:%S} UTC.")
    return _leave(request, acting, level, scope_id)


def _leave(request: HttpRequest, acting: Acting, level: str, scope_id: UUID) -> HttpResponse:
    """To the page that shows a scope: a key has one of its own."""
    with tenant_scope(acting.tenant_id):
        key = _key_of(level, scope_id)
    url = reverse("portal:limits") if key is None else reverse("portal:key-limits", args=[key.id])
    return HttpResponseClientRedirect(url) if getattr(request, "htmx", False) else redirect(url)


def _key_of(level: str, scope_id: UUID) -> ApiKey | None:
    """The newest active key whose limits are counted under the scope."""
    if not level.startswith("key"):
        return None
    keys = list_keys().filter(status=ApiKey.Status.ACTIVE)
    return next((key for key in keys if scope_id in (key.id, key.limits_scope_id)), None)


def _told(acting: Acting, limit: Limit, currency: str) -> dict[str, Any]:
    """What a dialog says of a limit."""
    with tenant_scope(acting.tenant_id):
        key = _key_of(limit.level, limit.scope_id)
        scopes = {scope.scope_id: scope.name for scope in limit_scopes.scopes_of(organisation())}
    return {
        "limit": limit,
        "label": limit_words.label(limit.kind, limit.window),
        "amount": limit_words.amount(limit.kind, limit.amount or 0, currency),
        "where": scopes.get(limit.scope_id if key is None else key.id, "a revoked key"),
    }


def _dialog(
    request: HttpRequest, acting: Acting, title: str, name: str, context: dict[str, Any]
) -> HttpResponse:
    fragment = f"portal/limits/{name}.html"
    return render_dialog(request, acting, "limits", title, fragment, context)
