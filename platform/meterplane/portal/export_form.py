"""What of its usage a customer wants as a file: the filters of the usage page, as a form.

The form is filled in from the address of the usage page. What that address says and the form has no
field for is carried along as it is, and shown.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, get_args
from urllib.parse import parse_qs, urlencode

from django import forms

from meterplane.contracts.usage import Status
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.metering import labels
from meterplane.metering.exports.query import FORMATS, KINDS, ExportQuery, checked
from meterplane.portal import periods
from tenants.models import ApiKey, Project

ANY = ("", "All")
GROUPS = {
    "model": "Model", "key": "Key", "project": "Project", "status": "Status",
    "surface": "Surface", "service_tier": "Tier", "priority": "Priority", "region": "Region",
    "gpu_type": "GPU type",
}  # fmt: skip
BUCKETS = {"hour": "Hour", "day": "Day", "month": "Month"}
_FILTERS = ("project", "key", "model", "surface", "status")
_NOT_CARRIED = {
    *_FILTERS, "period", "from", "to", "last", "group", "group_by", "bucket", "metric", "before",
    "format", "order", "limit", "tz",
}  # fmt: skip
_PICKED = forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d")


class ExportForm(forms.Form):
    """A new export. Its parameters are checked by the verb, in words."""

    kind = forms.ChoiceField(
        label="What",
        choices=list(KINDS.items()),
        help_text="Each request; sums of them; or cost and usage as FinOps tools read it.",
    )
    format = forms.ChoiceField(
        choices=list(FORMATS.items()),
        help_text="CSV for a spreadsheet, Parquet for a data warehouse.",
    )
    first_day = forms.DateField(label="From", widget=_PICKED)
    last_day = forms.DateField(label="To", widget=_PICKED, help_text="Included. Days are UTC.")
    project = forms.ChoiceField(required=False)
    key = forms.ChoiceField(label="API key", required=False)
    model = forms.CharField(required=False, max_length=80)
    surface = forms.ChoiceField(required=False, choices=[ANY, *labels.SURFACES.items()])
    status = forms.ChoiceField(
        required=False, choices=[ANY, *((name, name.title()) for name in get_args(Status))]
    )
    group = forms.ChoiceField(label="Sums by", required=False, choices=list(GROUPS.items()))
    bucket = forms.ChoiceField(label="Sums per", required=False, choices=list(BUCKETS.items()))
    carried = forms.CharField(required=False, widget=forms.HiddenInput, max_length=4_000)

    def __init__(
        self, *args: Any, projects: Iterable[Project], keys: Iterable[ApiKey], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        named = {
            "project": [(str(each.id), each.name) for each in projects],
            "key": [(str(each.id), f"{each.name} …{each.last4}") for each in keys],
        }
        for name, choices in named.items():
            self.fields[name].choices = [ANY, *choices]  # type: ignore[attr-defined]

    def query(self) -> ExportQuery:
        """What a valid form asks for. Raises `CallerError`."""
        asked = self.cleaned_data
        params: dict[str, list[str]] = parse_qs(asked["carried"], keep_blank_values=True)
        for name in (_NOT_CARRIED - set(_FILTERS)) & params.keys():
            del params[name]
        params["from"] = [asked["first_day"].isoformat()]
        params["to"] = [(asked["last_day"] + timedelta(days=1)).isoformat()]
        for name in _FILTERS:
            if asked[name]:
                params[name] = [asked[name]]
        if asked["kind"] == "usage":
            params["group_by"] = [asked["group"] or "model"]
            params["bucket"] = [asked["bucket"] or "day"]
        return checked(asked["kind"], asked["format"], params)

    def refuse(self, refused: CallerError) -> None:
        """Show a refusal beside its field, where it has one here."""
        field = {"from": "first_day", "to": "last_day", "group_by": "group"}.get(
            refused.field or "", refused.field
        )
        self.add_error(field if field in self.fields else None, refused.message)


def initial(shown: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """What the form begins with, from the address of a usage page; never an error."""
    only = {name: values[0] for name, values in shown.items() if len(values) == 1 and values[0]}
    period = periods.period(only.get("period", ""), clock.now())
    carried = {
        name: values
        for name, values in shown.items()
        if name not in _NOT_CARRIED or (name in _FILTERS and len(values) > 1)
    }
    last = _day(only.get("to", ""))
    return {
        "first_day": _day(only.get("from", "")) or period.start.date(),
        "last_day": last or (period.end - timedelta(microseconds=1)).date(),
        "group": only.get("group_by") or only.get("group") or "model",
        "bucket": only.get("bucket") or "day",
        "carried": urlencode(carried, doseq=True),
    } | {name: only[name] for name in _FILTERS if name in only}


def _day(text: str) -> date | None:
    try:
        return datetime.fromisoformat(text).date()
    except ValueError:
        return None
