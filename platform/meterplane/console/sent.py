"""Scheduled exports: the buckets they are sent to, what is sent, and how the last runs went.

Guarantees: a form is stored by the verbs of `metering.exports.destination`, and what they refuse is
shown beside its field. A secret is entered and never shown.
"""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html_join
from unfold.widgets import (
    UnfoldAdminPasswordWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
)

from meterplane.console import shown
from meterplane.console.read_only import ReadOnly
from meterplane.console.site import site
from meterplane.kernel import amounts, clock
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.metering.exports.destination import (
    save_destination,
    save_schedule,
    test_connection,
)
from meterplane.metering.exports.periods import due_at
from meterplane.metering.exports.query import FORMATS, KINDS
from meterplane.metering.models import ExportDelivery, ExportDestination, ExportSchedule
from tenants.models import Organisation

DELIVERIES_SHOWN = 20
STATE_LABELS = {"off": "info", "failing": "danger", "under way": "warning", "sent": "success"}
FILTERS_HELP = (
    'The parameters of a usage query, as {"model": "tiny-lm", "tag:team": ["a", "b"]}; of sums also'
    ' {"group_by": ["model,key"], "bucket": "hour"}, and of FOCUS rows {"bucket": "hour"}. Nothing'
    " of the period."
)


class _Refusable(forms.ModelForm):  # type: ignore[type-arg]
    """A form whose verb may refuse it. The verb runs in `save_model`, inside the page's door; here
    it is only asked, and what it stored is taken back."""

    def refuse(self, refused: CallerError) -> None:
        """Show a refusal beside its field, where it has one."""
        field = refused.field if refused.field in self.fields else None
        self.add_error(field, refused.message)

    def ask(self, act: Callable[[], None]) -> None:
        """Have the verb try, and keep nothing of it."""
        if self.errors:
            return
        try:
            with transaction.atomic():
                act()
                transaction.set_rollback(True)
        except CallerError as refused:
            self.refuse(refused)


class DestinationForm(_Refusable):
    """A bucket and its credentials."""

    secret = forms.CharField(
        required=False,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "off"}),
        help_text="Of the access key. Stored sealed and not shown again; empty: as it is.",
    )

    class Meta:
        model = ExportDestination
        fields = (
            "name", "endpoint", "region", "bucket", "prefix", "path_style", "access_key_id",
            "secret_env",
        )  # fmt: skip
        widgets = dict.fromkeys(
            ("name", "endpoint", "region", "bucket", "prefix", "access_key_id", "secret_env"),
            UnfoldAdminTextInputWidget,
        )
        labels = {"path_style": "Bucket in the path", "secret_env": "Variable with the secret"}
        help_texts = {
            "endpoint": "https://store.example.com or http://10.0.0.7:9000; empty: Amazon S3.",
            "region": "As the store calls it; us-east-1 where it has none.",
            "prefix": "Folders that all keys begin with.",
            "path_style": "Off: the bucket is in the host name.",
            "secret_env": "Name of the worker's environment variable, instead of a stored secret.",
        }

    def _post_clean(self) -> None:
        """The instance has the form's values from here on."""
        super()._post_clean()  # type: ignore[misc]  # ModelForm's, which the stubs leave out
        self.ask(lambda: save_destination(self.instance, self.cleaned_data.get("secret", "")))


@admin.register(ExportDestination, site=site)
class DestinationPage(ReadOnly):
    """Buckets. A connection is tested by the action of the list."""

    form = DestinationForm
    list_display = ("name", "where", "bucket", "prefix", "schedule_count")
    search_fields = ("name", "bucket")
    ordering = ("name",)
    fields = (
        "name", "endpoint", "region", "bucket", "prefix", "path_style", "access_key_id", "secret",
        "secret_env",
    )  # fmt: skip
    actions = ("test_connections",)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_view_permission(request, obj)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_view_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Once nothing is sent there any more."""
        used = isinstance(obj, ExportDestination) and obj.schedules.exists()
        return self.has_view_permission(request, obj) and not used

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Deleting is by the page, which knows whether there are schedules."""
        actions: dict[str, Any] = super().get_actions(request)
        actions.pop("delete_selected", None)
        return actions

    def save_model(
        self, request: HttpRequest, row: ExportDestination, form: DestinationForm, change: bool
    ) -> None:
        """Store it with its secret."""
        save_destination(row, form.cleaned_data["secret"])

    @shown.column(description="Endpoint")
    def where(self, row: ExportDestination) -> str:
        return row.endpoint or f"Amazon S3, {row.region}"

    @shown.column(description="Schedules")
    def schedule_count(self, row: ExportDestination) -> int:
        return row.schedules.count()

    @admin.action(description="Test connection: write, read and delete a small object")
    def test_connections(self, request: HttpRequest, rows: "QuerySet[ExportDestination]") -> None:
        for row in rows:
            try:
                test_connection(row)
            except WorldError as failed:
                messages.error(request, f"{row}: {failed.message}")
            else:
                messages.success(request, f"{row}: written, read and deleted in {row.bucket}")


class ScheduleForm(_Refusable):
    """What is sent, how often, and from when on."""

    kind = forms.ChoiceField(choices=list(KINDS.items()), widget=UnfoldAdminSelectWidget)
    format = forms.ChoiceField(
        choices=list(FORMATS.items()), initial="parquet", widget=UnfoldAdminSelectWidget
    )
    # Organisations are read inside the page's door, which is not open when this class is made.
    organisation = forms.TypedChoiceField(
        required=False,
        coerce=UUID,
        empty_value=None,
        widget=UnfoldAdminSelectWidget,
        help_text="Empty: all organisations.",
    )

    class Meta:
        model = ExportSchedule
        fields = ("name", "destination", "every", "filters", "next_period", "is_active")
        widgets = {"name": UnfoldAdminTextInputWidget}
        labels = {"next_period": "Next period", "is_active": "Active"}
        help_texts = {
            "name": "Part of the keys, as all-events in exports/events/2026/11/29/all-events.csv.",
            "filters": FILTERS_HELP,
            "next_period": "UTC. The first period that is sent is the one this instant is in; each"
            " is sent ten minutes after its end.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance._state.adding:
            self.initial.setdefault("next_period", clock.now())
        named = [(str(each.id), each.name) for each in Organisation.objects.order_by("name")]
        self.fields["organisation"].choices = [("", "All"), *named]  # type: ignore[attr-defined]
        for name in ("kind", "format"):
            self.initial.setdefault(name, getattr(self.instance, name) or None)
        self.initial.setdefault("organisation", str(self.instance.tenant_id or ""))

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]  # ModelForm's, which the stubs leave out
        self.instance.tenant_id = self.cleaned_data.get("organisation")
        for name in ("kind", "format"):
            setattr(self.instance, name, self.cleaned_data.get(name, ""))
        self.ask(lambda: save_schedule(self.instance))


@admin.register(ExportSchedule, site=site)
class SchedulePage(ReadOnly):
    """Schedules, with how their last run went and when the next is."""

    form = ScheduleForm
    list_display = (
        "name", "destination", "tenant", "what", "every", "shown_state", "last_run", "next_run",
        "error",
    )  # fmt: skip
    list_filter = ("destination", "kind", "is_active")
    list_select_related = ("destination", "tenant")
    ordering = ("name",)
    entered = (
        "name", "destination", "organisation", "kind", "format", "every", "filters", "next_period",
        "is_active",
    )  # fmt: skip
    readonly_fields = ("periods",)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return (*self.entered, "periods") if obj else self.entered

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_view_permission(request, obj)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_view_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_view_permission(request, obj)

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """One at a time, by the page."""
        actions: dict[str, Any] = super().get_actions(request)
        actions.pop("delete_selected", None)
        return actions

    def save_model(
        self, request: HttpRequest, row: ExportSchedule, form: ScheduleForm, change: bool
    ) -> None:
        """Store it; what is due is begun by the next look of the worker."""
        save_schedule(row)

    @shown.column(description="Sends")
    def what(self, row: ExportSchedule) -> str:
        return f"{row.kind}, {row.format}"

    @shown.column(description="State", label=STATE_LABELS)
    def shown_state(self, row: ExportSchedule) -> str:
        if not row.is_active:
            return "off"
        if self.error(row):
            return "failing"
        is_open = row.deliveries.exclude(state=ExportDelivery.State.DELIVERED).exists()
        return "under way" if is_open else "sent"

    @shown.column(description="Last run")
    def last_run(self, row: ExportSchedule) -> str:
        last = row.deliveries.exclude(delivered_at=None).order_by("-delivered_at").first()
        return shown.utc(last.delivered_at if last else None)

    @shown.column(description="Next run")
    def next_run(self, row: ExportSchedule) -> str:
        waiting = row.deliveries.exclude(state=ExportDelivery.State.DELIVERED)
        first = waiting.order_by("try_at").first()
        return (
            shown.utc(first.try_at if first else due_at(row.every, row.next_period))
            if row.is_active
            else "off"
        )

    @shown.column(description="Error")
    def error(self, row: ExportSchedule) -> str:
        failing = row.deliveries.exclude(error="").order_by("period_start").first()
        return failing.error if failing else ""

    @shown.column(description="Last periods")
    def periods(self, row: ExportSchedule) -> str:
        last = row.deliveries.order_by("-period_start")[:DELIVERIES_SHOWN]
        lines = [
            (
                shown.utc(each.period_start),
                each.get_state_display(),
                f"revision {each.revision}, {each.rows:,} rows" if each.revision else "",
                each.object_key,
                each.error,
            )
            for each in last
        ]
        return format_html_join("", "<p>{} · {} {} {} {}</p>", lines) or amounts.NOTHING
