"""API keys: list, create (the secret is shown once), revoke."""

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods

from meterplane.kernel.errors import CallerError, WorldError
from meterplane.metering.queries import keys_last_used
from meterplane.portal.access import (
    Acting,
    member_action,
    member_page,
    render_page,
    require_key_manager,
)
from meterplane.portal.forms import KeyForm
from meterplane.portal.snippets import curl
from tenants.keys import issue_key, revoke_key
from tenants.models import ApiKey
from tenants.queries import list_keys, list_projects
from tenants.scoping import tenant_scope


@require_GET
@member_page
def keys(request: HttpRequest, acting: Acting) -> HttpResponse:
    last_used = keys_last_used()
    rows = [_row(key) | {"last_used_at": last_used.get(key.id)} for key in list_keys()]
    context = {"keys": rows, "active_count": sum(row["status"] == "active" for row in rows)}
    return render_page(request, acting, "keys", "portal/keys/page.html", context)


@require_http_methods(["GET", "POST"])
@member_action
def new(request: HttpRequest, acting: Acting) -> HttpResponse:
    """The form, and on success the only page that ever holds the secret."""
    require_key_manager(acting)
    with tenant_scope(acting.tenant_id):
        form = KeyForm(request.POST or None, projects=list_projects())
        valid = request.method == "POST" and form.is_valid()
        if not valid:
            return _dialog(request, acting, "Create", "portal/keys/new.html", {"form": form})
    try:
        issued = issue_key(
            tenant_id=acting.tenant_id,
            project_id=form.cleaned_data["project"],
            name=form.cleaned_data["name"],
            created_by=acting.user_id,
        )
    except CallerError as refused:
        form.add_error(refused.field if refused.field in form.fields else None, refused.message)
        with tenant_scope(acting.tenant_id):
            return _dialog(request, acting, "Create", "portal/keys/new.html", {"form": form})
    created = {"key": issued.key, "secret": issued.secret, "curl": curl(issued.secret)}
    return _dialog(request, acting, "Created", "portal/keys/created.html", created)


@require_http_methods(["GET", "POST"])
@member_action
def revoke(request: HttpRequest, acting: Acting, key_id: UUID) -> HttpResponse:
    """Ask, then revoke. A key of another organisation is missing here."""
    with tenant_scope(acting.tenant_id):
        key = list_keys().filter(id=key_id).first()
    if key is None:
        raise Http404
    require_key_manager(acting)
    if request.method == "GET":
        return _dialog(request, acting, "Revoke", "portal/keys/revoke.html", {"key": _row(key)})
    try:
        revoke_key(tenant_id=acting.tenant_id, key_id=key_id)
    except WorldError:
        messages.error(request, f"{key.name} is revoked, but not every gateway knows. Try again.")
    else:
        messages.success(request, f"{key.name} is revoked")
    return redirect("portal:keys")


def _row(key: ApiKey) -> dict[str, Any]:
    """What a page may know of a key; its digest stays where it is."""
    return {
        "id": key.id,
        "name": key.name,
        "prefix": key.prefix,
        "last4": key.last4,
        "project": key.project.name,
        "status": key.status,
        "created_at": key.created_at,
    }


def _dialog(
    request: HttpRequest, acting: Acting, title: str, fragment: str, context: dict[str, Any]
) -> HttpResponse:
    """A fragment for the page's dialog, or a page of its own where no script runs."""
    if getattr(request, "htmx", False):
        response = render(request, fragment, context | {"acting": acting})
        response["Cache-Control"] = "no-store"
        return response
    alone = context | {"fragment": fragment, "title": title}
    return render_page(request, acting, "keys", "portal/keys/alone.html", alone)
