"""A table operators look at and no form can change.

Rows are written by the verbs of their own domain, with their side effects (a policy recompiled, a
gateway told); a form that saved them behind those verbs' backs would leave the effects out. What
operators may do is an action that calls a verb.
"""

from typing import Any

from django.http import Http404, HttpRequest
from unfold.admin import ModelAdmin, TabularInline


class NoForms:
    """No adding, changing or deleting; looking is for every member of staff."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(getattr(request.user, "is_staff", False))


class ReadOnly(NoForms, ModelAdmin):  # type: ignore[misc]  # unfold carries no types
    """A changelist and a page per row, without a save button."""

    list_per_page = 50
    list_fullwidth = True
    compressed_fields = True
    list_filter_submit = False

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def row_or_404(self, request: HttpRequest, object_id: str) -> Any:
        """The row that an action's address names; an address with no such row has no page."""
        row = self.get_object(request, object_id)
        if row is None:
            raise Http404
        return row

    def note(self, request: HttpRequest, row: Any, message: str) -> None:
        """Remember in the row's history which operator did what."""
        self.log_change(request, row, message)


class ReadOnlyInline(NoForms, TabularInline):  # type: ignore[misc]
    """Rows of a row."""

    extra = 0
    can_delete = False
    show_change_link = False
    hide_title = True  # the columns say it
