"""The page that writes one entry of a draft, and says as it is typed what usage would cost.

Guarantees: an entry is read by the reader of the control API and priced by the one price function;
what is stored is what was read. Every refusal stands beside its field. All of it works by buttons;
where script runs, choosing a meter or a type shows its fields, and typing prices it, by itself.
"""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import msgspec
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from unfold.widgets import BASE_INPUT_CLASSES, SELECT_CLASSES, TEXTAREA_CLASSES

from billing.pricing.book import SERVICE_TIERS
from billing.pricing.copy import unit_prices_as_entries
from billing.pricing.entry_json import entry_to_json
from billing.pricing.entry_rows import put_entry
from billing.pricing.models import PriceBookVersion, PriceEntry
from billing.rating.price import TierLine, price
from meterplane.catalog.meters import at as version_at
from meterplane.catalog.meters import list_meters
from meterplane.catalog.models import Model
from meterplane.console import entry_form
from meterplane.console.entry_form import Read, Said
from meterplane.console.site import site
from meterplane.kernel import amounts, clock
from meterplane.kernel.decimals import NotExact, decimal_to_text, text_to_decimal
from meterplane.kernel.errors import CallerError
from meterplane.kernel.money import minor_to_text

QUANTITY = "1000000"
NEW: Said = {"meter": "input_tokens", "price_model.type": "unit"}
LABELS = {
    "unit_amount": "Price of each unit",
    "free_units": "Free units",
    "amount": "Amount",
    "package_size": "Units in a package",
    "package_amount": "Price of a package",
    "multiplier": "Times",
    "minimum_amount": "At least",
    "maximum_amount": "At most",
    "unit_conversion.divide_by": "Divide quantity by",
    "unit_conversion.rounding": "and round",
    "unit_conversion.decimals": "to decimals",
}
ROUNDINGS = (("", amounts.NOTHING), ("ceil", "up"), ("floor", "down"), ("half_up", "half up"))


def edit_entry(
    request: HttpRequest, version_id: UUID, entry_id: UUID | None = None
) -> HttpResponse:
    """Shows the form, and does what its button says."""
    version = PriceBookVersion.objects.select_related("book").filter(id=version_id).first()
    row = (
        PriceEntry.objects.filter(id=entry_id, version_id=version_id).first() if entry_id else None
    )
    if version is None or (entry_id is not None and row is None):
        raise Http404
    its_page = reverse("console:pricing_pricebookversion_change", args=[version.pk])
    if version.status != PriceBookVersion.Status.DRAFT:
        messages.error(request, f"{version} does not change: draft a copy of it.")
        return HttpResponseRedirect(its_page)
    if request.method != "POST":
        return _page(request, version, row, Read(_stored(row)))
    said, act = _said(request), request.POST.get("act", "")
    if act == "unit_prices":
        count = unit_prices_as_entries(version.id)
        _note(request, version, f"{count} unit prices became entries")
        return HttpResponseRedirect(request.path)
    if act == "json":
        try:
            said = entry_form.paste(request.POST.get("json", ""), said, clock.now())
        except CallerError as refused:
            return _page(request, version, row, Read(said, errors={"json": refused.message}))
    said = _tiers_changed(said, act)
    read = entry_form.read_form(said, clock.now())
    if act == "save" and _stored_as(request, version, row, read):
        return HttpResponseRedirect(its_page)
    if act != "save":  # what is not typed yet is no mistake yet
        read.errors = {name: text for name, text in read.errors.items() if said.get(name)}
    return _page(request, version, row, read)


def editor_urls() -> list[URLPattern]:
    """Mounted by the site."""
    start = "price-versions/<uuid:version_id>/entries"
    view = site.admin_view(edit_entry)
    return [
        path(f"{start}/new/", view, name="price_entry_new"),
        path(f"{start}/<uuid:entry_id>/", view, name="price_entry"),
    ]


def _stored_as(
    request: HttpRequest, version: PriceBookVersion, row: PriceEntry | None, read: Read
) -> bool:
    """False where it was refused; `read` says why."""
    if read.entry is None:
        return False
    try:
        put_entry(version.id, read.entry, row.id if row else None)
    except CallerError as refused:
        place, message = entry_form.in_place(refused)
        read.errors[place] = message
        return False
    done = "changed" if row else "added"
    _note(request, version, f"entry {read.entry.display_name!r} of {read.entry} {done}")
    messages.success(request, f"{read.entry.display_name} is {done}: {read.entry}")
    return True


def _note(request: HttpRequest, version: PriceBookVersion, message: str) -> None:
    site.get_model_admin(PriceBookVersion).note(request, version, message)


def _said(request: HttpRequest) -> Said:
    """What was typed, without the fields that are not of the entry."""
    return {
        name: str(text).replace("\0", "")
        for name, text in request.POST.items()
        if name in ("meter", "display_name") or name.startswith(("match.", "price_model."))
    }


def _tiers_changed(said: Said, act: str) -> Said:
    if act == "add_tier":
        return entry_form.add_tier(said)
    verb, _, number = act.partition(":")
    if verb == "remove_tier" and number.isascii() and number.isdigit():
        return entry_form.remove_tier(said, int(number[:3]))
    return said


def _stored(row: PriceEntry | None) -> Said:
    if row is None:
        return dict(NEW)
    return entry_form.fields_of(
        {
            "meter": row.meter,
            "match": row.match,
            "price_model": row.price_model,
            "display_name": row.display_name,
        }
    )


def _page(
    request: HttpRequest, version: PriceBookVersion, row: PriceEntry | None, read: Read
) -> HttpResponse:
    if read.entry is None and not read.errors:
        read.entry = entry_form.read_form(read.said, clock.now()).entry
    quantity = request.POST.get("quantity", QUANTITY).strip()
    fields = _Fields(read.said, dict(read.errors))
    named = read.said.get("price_model.type", "")
    _, names = entry_form.TYPES.get(named, ("", ()))
    context = {
        **site.each_context(request),
        "title": f"{row.display_name if row else 'New entry'}, {version.book} {version}",
        "currency": version.book.currency,
        "is_new": row is None,
        "has_unit_prices": version.prices.exists() and not version.entries.exists(),
        "meter": fields.select("meter", "Meter", _meters()),
        "match": [_match_field(fields, name) for name in _dimensions(read.said)],
        "type": fields.select(
            "price_model.type",
            "Price",
            [(key, said) for key, (said, _) in entry_form.TYPES.items()],
        ),
        "amounts": [fields.text(f"price_model.{name}", LABELS[name]) for name in names],
        "tiers": _tiers(fields) if named in entry_form.TIERED else [],
        "bounds": [
            fields.text(f"price_model.{name}", LABELS[name])
            for name in (*entry_form.BOUNDS, "unit_conversion.divide_by")
        ]
        + [
            fields.select(
                "price_model.unit_conversion.rounding",
                LABELS["unit_conversion.rounding"],
                ROUNDINGS,
            ),
            fields.text("price_model.unit_conversion.decimals", LABELS["unit_conversion.decimals"]),
        ],
        "display_name": fields.text("display_name", "Display name"),
        "json": _json(request, read),
        "json_error": fields.errors.pop("json", ""),
        "quantity": quantity,
        "preview": _preview(read, quantity, version.book.currency),
        "back_url": reverse("console:pricing_pricebookversion_change", args=[version.pk]),
        "input_class": " ".join(BASE_INPUT_CLASSES),
        "select_class": " ".join(SELECT_CLASSES),
        "textarea_class": " ".join(TEXTAREA_CLASSES),
    }
    context["errors"] = list(fields.errors.values())  # of fields that are not shown
    return TemplateResponse(request, "console/entry.html", context)


class _Fields:
    """Fields for the template; each takes the sentence that belongs to it out of `errors`."""

    def __init__(self, said: Said, errors: dict[str, str]) -> None:
        self.said, self.errors = said, errors

    def text(self, name: str, label: str, choices: list[str] | None = None) -> dict[str, Any]:
        return self._field(name, label) | {"suggested": choices or []}

    def select(self, name: str, label: str, choices: Any) -> dict[str, Any]:
        return self._field(name, label) | {"choices": choices}

    def _field(self, name: str, label: str) -> dict[str, Any]:
        return {
            "name": name,
            "id": f"id_{name}",
            "label": label,
            "value": self.said.get(name, ""),
            "error": self.errors.pop(name, ""),
        }


def _tiers(fields: _Fields) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    count = entry_form.tiers_said(fields.said)
    for number in range(count):
        at = f"price_model.tiers[{number}]"
        rows.append(
            {
                "number": number,
                "above": fields.said.get(f"price_model.tiers[{number - 1}].up_to", "") or "0",
                "up_to": fields.text(f"{at}.up_to", f"Tier {number + 1} up to"),
                "is_last": number == count - 1,
                "cells": [
                    fields.text(f"{at}.unit_amount", f"Tier {number + 1}, each unit"),
                    fields.text(f"{at}.flat_amount", f"Tier {number + 1}, flat"),
                ],
            }
        )
    return rows


def _meters() -> list[tuple[str, str]]:
    now = clock.now()
    return [
        (versions[0].slug, f"{version_at(versions, now).definition.name} ({versions[0].slug})")
        for versions in list_meters()
    ]


def _dimensions(said: Said) -> tuple[str, ...]:
    return entry_form.dimensions_of(said.get("meter", ""), clock.now())


def _match_field(fields: _Fields, name: str) -> dict[str, Any]:
    label = name.replace("_", " ").capitalize()
    if name == "service_tier":
        tiers = [("", "any"), *((tier, tier) for tier in SERVICE_TIERS)]
        return fields.select(f"match.{name}", label, tiers)
    models = list(Model.objects.values_list("name", flat=True)) if name == "model" else []
    return fields.text(f"match.{name}", label, models)


def _json(request: HttpRequest, read: Read) -> str:
    """What the fields say; what was pasted, where that could not be taken."""
    if "json" in read.errors:
        return request.POST.get("json", "")
    if read.entry is None:
        return ""
    value = {name: each for name, each in entry_to_json(read.entry).items() if name != "id"}
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def _preview(read: Read, quantity: str, currency: str) -> dict[str, Any]:
    """What that much usage would cost, in a sentence and by its parts."""
    if read.entry is None:
        return {"wants": "Fill in the price, and what usage costs is shown here."}
    try:
        asked = text_to_decimal(quantity.replace(",", ""))
        priced = price(read.entry.price_model, asked, currency)
    except NotExact as wrong:
        return {"error": f"A quantity {wrong}."}
    except CallerError as refused:
        return {"error": refused.message}
    amount = f"{minor_to_text(priced.amount_minor, currency)} {currency}"
    exact = decimal_to_text(priced.exact)
    return {
        "amount": f"{asked:,f} units cost {amount}",
        "exact": f"exactly {exact}, rounded once" if exact != _plain(amount) else "",
        "rows": [_line(each) for each in priced.lines],
    }


def _plain(amount: str) -> str:
    return decimal_to_text(text_to_decimal(amount.partition(" ")[0]))


def _line(line: TierLine) -> Mapping[str, str]:
    what = "" if line.kind == "usage" else line.kind.replace("_", " ").capitalize()
    if line.tier is not None:
        what = f"Tier {line.tier}"
    parts = []
    if line.unit_amount is not None:
        parts.append(f"{line.quantity:,f} × {decimal_to_text(line.unit_amount)}")  # noqa: RUF001
    if line.flat_amount:
        parts.append(decimal_to_text(line.flat_amount))
    return {"what": what, "how": " + ".join(parts), "amount": decimal_to_text(line.amount)}
