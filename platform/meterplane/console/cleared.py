"""The ledger's clearing accounts: what each holds now, the open items that explain it, and a rest
that none does. To look at; the rest is a finding too (`settled`)."""

from typing import Any

from django.http import HttpRequest
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join

from billing.payments.reconcile.clearing import Holding, holdings
from meterplane.console.site import site
from meterplane.kernel import amounts

ROWS_SHOWN = 500
ITEMS_SHOWN = 5
HEADERS = ["Account", "Organisation", "Holds", "Open items", "Not explained"]
CHOICES = (("", "All"), ("rest", "Not explained"))
EMPTY = {
    "": "No clearing account holds anything: all that was invoiced is paid, and all that was"
    " promised is paid back.",
    "rest": "Open items explain what every clearing account holds.",
}


def cleared(request: HttpRequest) -> TemplateResponse:
    """All of them, or those with a rest."""
    asked = request.GET.get("show", "")
    show = asked if asked in EMPTY else ""
    held = [each for each in holdings() if each.rest_minor or (each.items and not show)]
    here = reverse("console:clearing_accounts")
    said = (
        "What should be zero once everything is settled, and what is open meanwhile. Debits are"
        " positive. Looked at now."
    )
    if len(held) > ROWS_SHOWN:
        said += f" The first {ROWS_SHOWN:,} of {len(held):,} are shown."
    context = {
        **site.each_context(request),
        "title": "Clearing accounts",
        "said": said,
        "choices": [
            {"label": label, "url": f"{here}?show={name}", "current": name == show}
            for name, label in CHOICES
        ],
        "table": {"headers": HEADERS, "rows": [_cells(each) for each in held[:ROWS_SHOWN]]},
        "empty": EMPTY[show],
    }
    return TemplateResponse(request, "console/table.html", context)


def clearing_urls() -> list[URLPattern]:
    """Mounted by the site."""
    return [path("clearing/", site.admin_view(cleared), name="clearing_accounts")]


def _cells(held: Holding) -> list[Any]:
    items = format_html_join(
        "",
        "<div>{}: {}</div>",
        (
            (item.name, amounts.minor(item.amount_minor, held.currency))
            for item in held.items[:ITEMS_SHOWN]
        ),
    )
    more = len(held.items) - ITEMS_SHOWN
    if more > 0:
        items = format_html("{}<div>and {} more</div>", items, f"{more:,}")
    rest = render_to_string(
        "unfold/helpers/label.html",
        {"text": amounts.minor(held.rest_minor, held.currency), "type": "danger"},
    )
    where = reverse("console:tenants_organisation_change", args=[held.tenant_id])
    return [
        held.account,
        format_html('<a class="underline" href="{}">{}</a>', where, held.slug),
        amounts.minor(held.balance_minor, held.currency),
        items or amounts.NOTHING,
        rest if held.rest_minor else amounts.NOTHING,
    ]
