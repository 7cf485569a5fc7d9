"""API keys: list, create and rotate (the secret is shown once), revoke; leaks reported."""

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.metering.queries import keys_last_used
from meterplane.portal.access import (
    Acting,
    member_action,
    member_page,
    render_dialog,
    render_page,
    require_key_manager,
)
from meterplane.portal.forms import KeyForm, RotationForm
from meterplane.portal.snippets import curl
from tenants.keys import issue_key, revoke_key
from tenants.leaks import dismiss_leak
from tenants.models import ApiKey
from tenants.queries import list_keys, list_leaks, list_projects
from tenants.rotate import rotate_key
from tenants.scoping import tenant_scope


@require_GET
@member_page
def keys(request: HttpRequest, acting: Acting) -> HttpResponse:
    last_used = keys_last_used()
    rows = [_row(key) | {"last_used_at": last_used.get(key.id)} for key in list_keys()]
    active = sum(row["status"] == "active" for row in rows)
    context = {"keys": rows, "active_count": active, "leaks": list_leaks()}
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
    key = _key_here(acting, key_id)
    if request.method == "GET":
        return _dialog(request, acting, "Revoke", "portal/keys/revoke.html", {"key": _row(key)})
    try:
        revoke_key(tenant_id=acting.tenant_id, key_id=key_id)
    except WorldError:
        messages.error(request, f"{key.name} is revoked, but not every gateway knows. Try again.")
    else:
        messages.success(request, f"{key.name} is revoked")
    return redirect("portal:keys")


@require_http_methods(["GET", "POST"])
@member_action
def rotate(request: HttpRequest, acting: Acting, key_id: UUID) -> HttpResponse:
    """Ask how long both are to work; then the only page that ever holds the successor's secret."""
    key = _key_here(acting, key_id)
    form = RotationForm(request.POST or None)
    asked = {"form": form, "key": _row(key)}
    if request.method == "GET" or not form.is_valid():
        return _dialog(request, acting, "Rotate", "portal/keys/rotate.html", asked)
    try:
        issued = rotate_key(
            tenant_id=acting.tenant_id,
            key_id=key_id,
            overlap=form.cleaned_data["overlap"],
            created_by=acting.user_id,
        )
    except CallerError as refused:
        form.add_error(None, refused.message)
        return _dialog(request, acting, "Rotate", "portal/keys/rotate.html", asked)
    except WorldError:
        messages.error(
            request,
            f"{key.name} is rotated, but not every gateway knows, and the new secret cannot be"
            " shown. Rotate the new key.",
        )
        return redirect("portal:keys")
    made = {"key": issued.key, "secret": issued.secret, "curl": curl(issued.secret)}
    made["predecessor"] = issued.key.replaces
    return _dialog(request, acting, "Rotated", "portal/keys/created.html", made)


@require_POST
@member_action
def dismiss(request: HttpRequest, acting: Acting, report_id: UUID) -> HttpResponse:
    """The leak was seen to."""
    try:
        require_key_manager(acting)
        dismiss_leak(tenant_id=acting.tenant_id, report_id=report_id, dismissed_by=acting.user_id)
    except CallerError:
        raise Http404 from None
    return redirect("portal:keys")


def _key_here(acting: Acting, key_id: UUID) -> ApiKey:
    """A key to be changed. One of another organisation is missing here, whatever one's role."""
    with tenant_scope(acting.tenant_id):
        key = list_keys().filter(id=key_id).first()
    if key is None:
        raise Http404
    require_key_manager(acting)
    return key


def _row(key: ApiKey) -> dict[str, Any]:
    """What a page may know of a key; its digest stays where it is."""
    return {
        "id": key.id,
        "name": key.name,
        "prefix": key.prefix,
        "last4": key.last4,
        "project": key.project.name,
        "status": "expired" if _has_expired(key) else key.status,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "replaced_by": getattr(key, "replaced_by", None),
    }


def _has_expired(key: ApiKey) -> bool:
    ended = key.expires_at is not None and key.expires_at <= clock.now()
    return ended and key.status == ApiKey.Status.ACTIVE


def _dialog(
    request: HttpRequest, acting: Acting, title: str, fragment: str, context: dict[str, Any]
) -> HttpResponse:
    return render_dialog(request, acting, "keys", title, fragment, context)
