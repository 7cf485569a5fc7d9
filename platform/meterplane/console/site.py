"""The console's site: staff only, in the system's door, under a content policy of its own.

Guarantees: every console view runs inside `system_scope`, from before its first query until its
response is rendered, as one transaction; nothing outside the console gains from it. Its pages, and
no others, may evaluate script: Unfold's Alpine build compiles attribute expressions, and 41 errors
stop its menus under the portal's policy.

Sign-in is the portal's own (allauth): one page, one rate limit, one place for a second factor.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from allauth.account.decorators import secure_admin_login
from csp.constants import SELF, UNSAFE_EVAL, UNSAFE_INLINE
from django.contrib import messages
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.template.response import SimpleTemplateResponse
from django.urls import URLPattern
from unfold.sites import UnfoldAdminSite

from meterplane.kernel.errors import WorldError
from tenants.scoping import system_scope

CONTENT_POLICY = {
    "script-src": [SELF, UNSAFE_EVAL],
    "style-src": [SELF, UNSAFE_INLINE],
}

View = Callable[..., HttpResponseBase]


class ConsoleSite(UnfoldAdminSite):  # type: ignore[misc]  # unfold carries no types
    """Unfold's admin for operators."""

    site_header = "Meterplane"
    site_title = "Meterplane console"
    index_title = "Today"
    index_template = "console/dashboard.html"

    def extra_urls(self) -> list[URLPattern]:
        """Pages that are not a model's; Unfold mounts what this returns."""
        # Their pages register with this site.
        from meterplane.console.cleared import clearing_urls
        from meterplane.console.collecting import collecting_urls
        from meterplane.console.entry_editor import editor_urls
        from meterplane.console.external import external_urls
        from meterplane.console.journals import journal_urls
        from meterplane.console.metered import usage_urls
        from meterplane.console.meters import meter_urls
        from meterplane.console.reconciled import reconciliation_urls
        from meterplane.console.settled import finding_urls

        return [
            *editor_urls(),
            *usage_urls(),
            *meter_urls(),
            *external_urls(),
            *reconciliation_urls(),
            *journal_urls(),
            *collecting_urls(),
            *finding_urls(),
            *clearing_urls(),
        ]

    def admin_view(self, view: View, cacheable: bool = False) -> View:
        """Django's staff check outside, the system's door inside."""
        checked: View = super().admin_view(in_system_scope(view), cacheable)
        return with_content_policy(checked)


def in_system_scope(view: View) -> View:
    """Run a view, and render what it returns, inside the system's door.

    A template response is lazy: left alone, Django renders it after the door has closed, and every
    queryset in its context would raise.
    """

    @wraps(view)
    def inside(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            with system_scope(f"operator {request.user.pk} at {request.method} {request.path}"):
                response = view(request, *args, **kwargs)
                if isinstance(response, SimpleTemplateResponse):
                    return response.render()
                return response
        except WorldError as away:
            if request.method != "POST":
                raise
            # Committed, but the gateways could not be told: say so, and show where things stand.
            messages.error(request, away.message)
            return HttpResponseRedirect(request.get_full_path())

    return inside


def with_content_policy(view: View) -> View:
    """Give a console page the policy Unfold needs."""

    @wraps(view)
    def loosened(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        response = view(request, *args, **kwargs)
        response._csp_update = CONTENT_POLICY  # type: ignore[attr-defined]  # read by django-csp
        return response

    return loosened


site = ConsoleSite(name="console")
site.login = secure_admin_login(site.login)
