"""Restrict what an organisation's keys are used for, and from where; take it back.

As with its limits, owners and admins do, and what they say only narrows.
"""

from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.http import require_http_methods

from meterplane.catalog.queries import active_models
from meterplane.portal import limit_scopes
from meterplane.portal.access import (
    Acting,
    member_action,
    render_dialog,
    require_limit_manager,
)
from meterplane.portal.limit_forms import RestrictionForm, as_typed
from meterplane.portal.views.limit_forms import stored
from tenants.limits import set_restriction
from tenants.models import Restriction, SetBy
from tenants.queries import organisation
from tenants.scoping import tenant_scope


@require_http_methods(["GET", "POST"])
@member_action
def new(request: HttpRequest, acting: Acting) -> HttpResponse:
    """Restrict a scope that the organisation has not restricted yet."""
    require_limit_manager(acting)
    with tenant_scope(acting.tenant_id):
        scopes = limit_scopes.scopes_of(organisation())
        said = Restriction.objects.filter(set_by=SetBy.ORGANISATION)
        form = RestrictionForm(
            request.POST or None,
            initial={"scope": request.GET.get("scope", "")},
            scopes=limit_scopes.choices(scopes, set(said.values_list("level", "scope_id"))),
            models=[model.name for model in active_models()],
        )
    return _restrict(request, acting, form, scopes)


@require_http_methods(["GET", "POST"])
@member_action
def change(request: HttpRequest, acting: Acting, level: str, scope_id: UUID) -> HttpResponse:
    """Say anew what the organisation says of a scope, all of it."""
    row, scope, scopes = _restricted(acting, level, scope_id)
    on_offer = {model.name for model in active_models()}
    form = RestrictionForm(
        request.POST or None,
        initial=as_typed(row) | {"scope": scope.value},
        scopes=limit_scopes.choices([scope]),
        models=sorted(on_offer | set(row.allowed_models or [])),
    )
    return _restrict(request, acting, form, scopes, scope)


@require_http_methods(["GET", "POST"])
@member_action
def remove(request: HttpRequest, acting: Acting, level: str, scope_id: UUID) -> HttpResponse:
    """Ask, then take it back: what others say holds on."""
    _, scope, _ = _restricted(acting, level, scope_id)
    refusals: list[str] = []
    if request.method == "POST":

        def act() -> None:
            set_restriction(
                tenant_id=acting.tenant_id, level=level, scope_id=scope_id, by=SetBy.ORGANISATION
            )

        done = f"The restriction of {scope.name} is removed"
        heard = refusals.append
        answer = stored(
            request, acting, lambda said: heard(said.message), act, done, level, scope_id
        )
        if answer:
            return answer
    context = {"scope": scope, "refusals": refusals}
    fragment = "portal/limits/remove_restriction.html"
    return render_dialog(request, acting, "limits", "Remove a restriction", fragment, context)


def _restrict(
    request: HttpRequest,
    acting: Acting,
    form: RestrictionForm,
    scopes: list[limit_scopes.Scope],
    scope: limit_scopes.Scope | None = None,
) -> HttpResponse:
    if request.method == "POST" and form.is_valid():
        chosen = form.cleaned_data["scope"]
        level, scope_id = limit_scopes.parsed(chosen)

        def act() -> Restriction | None:
            return set_restriction(
                tenant_id=acting.tenant_id,
                level=level,
                scope_id=scope_id,
                by=SetBy.ORGANISATION,
                **form.said(),
            )

        where = next(each.name for each in scopes if each.value == chosen)
        done = f"{where} is restricted"
        if answer := stored(request, acting, form.refuse, act, done, level, scope_id):
            return answer
    title = "Restrict keys" if scope is None else f"Restrict {scope.name}"
    fragment = "portal/limits/restrict.html"
    context = {"form": form, "scope": scope, "title": title}
    return render_dialog(request, acting, "limits", title, fragment, context)


def _restricted(
    acting: Acting, level: str, scope_id: UUID
) -> tuple[Restriction, limit_scopes.Scope, list[limit_scopes.Scope]]:
    """What the organisation says of a scope. Of another organisation's there is none."""
    with tenant_scope(acting.tenant_id):
        row: Restriction | None = Restriction.objects.filter(
            set_by=SetBy.ORGANISATION, level=level, scope_id=scope_id
        ).first()
        scopes = limit_scopes.scopes_of(organisation())
    scope = next(
        (each for each in scopes if (each.level, each.scope_id) == (level, scope_id)), None
    )
    if row is None or scope is None:
        raise Http404
    require_limit_manager(acting)
    return row, scope, scopes
