"""Who is signed in, for which organisation they act, and what their role lets them do.

Guarantees: a page runs inside the tenant's door of an organisation its user is a member of,
whatever the session says; an object of another organisation is therefore missing, not forbidden.
Permission is decided here, before a door opens; the doors themselves know no roles.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, ParamSpec, cast
from uuid import UUID

from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse

from tenants.queries import Membership, memberships_of
from tenants.scoping import tenant_scope

SESSION_KEY = "organisation"
MANAGES_KEYS = frozenset({"owner", "admin", "developer"})
MANAGES_LIMITS = frozenset({"owner", "admin"})
MANAGES_BILLING = frozenset({"owner", "admin", "billing"})
EXPORTS_USAGE = frozenset({"owner", "admin", "developer", "billing"})

P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Acting:
    """A user acting for one of their organisations."""

    user_id: int
    email: str
    is_staff: bool
    membership: Membership
    memberships: tuple[Membership, ...]

    @property
    def tenant_id(self) -> UUID:
        return self.membership.tenant_id

    @property
    def name(self) -> str:
        return self.membership.name

    @property
    def slug(self) -> str:
        return self.membership.slug

    @property
    def role(self) -> str:
        return self.membership.role

    @property
    def may_manage_keys(self) -> bool:
        return self.role in MANAGES_KEYS

    @property
    def may_manage_limits(self) -> bool:
        return self.role in MANAGES_LIMITS

    @property
    def may_manage_billing(self) -> bool:
        return self.role in MANAGES_BILLING

    @property
    def may_export(self) -> bool:
        return self.role in EXPORTS_USAGE


Page = Callable[Concatenate[HttpRequest, Acting, P], HttpResponseBase]


def acting_for(request: HttpRequest) -> Acting | None:
    """The organisation chosen in this session, or the user's first one; None without any."""
    user = request.user
    if not isinstance(user, User):
        return None
    memberships = memberships_of(user.pk)
    if not memberships:
        return None
    chosen = request.session.get(SESSION_KEY)
    current = next((m for m in memberships if str(m.tenant_id) == chosen), memberships[0])
    return Acting(user.pk, user.email, user.is_staff, current, tuple(memberships))


def member_action(view: Page[P]) -> Callable[Concatenate[HttpRequest, P], HttpResponseBase]:
    """A view for members only. Opens no door: the verb it calls does, and commits by itself."""

    @wraps(view)
    def inside(request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        acting = acting_for(request)
        if acting is None:
            return _without_organisation(request)
        return view(request, acting, *args, **kwargs)

    # functools.wraps renames the first parameter in mypy's eyes; the views are called by position.
    return cast("Callable[Concatenate[HttpRequest, P], HttpResponseBase]", login_required(inside))


def member_page(view: Page[P]) -> Callable[Concatenate[HttpRequest, P], HttpResponseBase]:
    """A reading view for members only, run and rendered inside their organisation's door."""

    def inside(
        request: HttpRequest, acting: Acting, /, *args: P.args, **kwargs: P.kwargs
    ) -> HttpResponseBase:
        with tenant_scope(acting.tenant_id):
            return view(request, acting, *args, **kwargs)

    return member_action(wraps(view)(inside))


def require_key_manager(acting: Acting) -> None:
    """Raises `PermissionDenied` for roles that may only look."""
    if not acting.may_manage_keys:
        raise PermissionDenied


def require_limit_manager(acting: Acting) -> None:
    """Raises `PermissionDenied` for roles that may only look."""
    if not acting.may_manage_limits:
        raise PermissionDenied


def require_billing_manager(acting: Acting) -> None:
    """Raises `PermissionDenied` for roles that may only look."""
    if not acting.may_manage_billing:
        raise PermissionDenied


def require_exporter(acting: Acting) -> None:
    """Raises `PermissionDenied` for roles that may only look."""
    if not acting.may_export:
        raise PermissionDenied


def render_page(
    request: HttpRequest, acting: Acting, page: str, template: str, context: dict[str, Any]
) -> HttpResponse:
    """A page in the shell, its entry in the sidebar marked."""
    shell = {"acting": acting, "page": page, "nav": navigation()}
    response = render(request, template, shell | context)
    # What a signed-out browser finds with the back button is nothing of ours.
    response["Cache-Control"] = "no-store"
    return response


def render_dialog(
    request: HttpRequest,
    acting: Acting,
    page: str,
    title: str,
    fragment: str,
    context: dict[str, Any],
) -> HttpResponse:
    """A fragment for the page's dialog, or a page of its own where no script runs."""
    if getattr(request, "htmx", False):
        response = render(request, fragment, context | {"acting": acting})
        response["Cache-Control"] = "no-store"
        return response
    parent = next(each for each in navigation() if each["name"] == page)
    alone = context | {"fragment": fragment, "title": title, "parent": parent}
    return render_page(request, acting, page, "portal/alone.html", alone)


def navigation() -> list[dict[str, str]]:
    """The sidebar, in order; the palette offers the same."""
    entries = [
        ("overview", "Overview", "layout-dashboard", "home start quickstart"),
        ("usage", "Usage", "chart-column", "requests tokens spend cost chart"),
        ("exports", "Exports", "download", "csv parquet focus file finops"),
        ("keys", "API keys", "key-round", "secret token credentials"),
        ("limits", "Limits", "gauge", "budget quota rate plan balance restriction"),
        ("billing", "Billing", "receipt-text", "invoice pay price"),
    ]
    return [
        {
            "name": name,
            "label": label,
            "icon": icon,
            "keywords": keywords,
            "url": reverse(f"portal:{name}"),
        }
        for name, label, icon, keywords in entries
    ]


def _without_organisation(request: HttpRequest) -> HttpResponse:
    if isinstance(request.user, User) and request.user.is_staff:
        return redirect("console:index")
    return render(request, "portal/nowhere.html")
