"""Draft a copy of a version, to be changed and published; and what a draft says, as entries."""

from dataclasses import replace
from uuid import UUID

from django.db import transaction

from billing.pricing.derive import unit_entries
from billing.pricing.entry import Entry, Match
from billing.pricing.entry_rows import store_entries
from billing.pricing.models import PriceBookVersion
from billing.pricing.price_model import PriceModel
from billing.pricing.publish import create_draft
from billing.pricing.queries import prices_of, unit_prices_stored
from meterplane.kernel.errors import CallerError
from meterplane.kernel.ids import uuid7


def draft_copy(version_id: UUID) -> PriceBookVersion:
    """A draft that says what a published version says: in unit prices where those say it all.

    Raises `CallerError` `version_missing` for a draft, or no version at all.
    """
    book = prices_of(version_id)
    if book is None:
        raise CallerError(
            "version_missing", "No published version has this id: a draft is edited.", status=404
        )
    listed = {_said(each) for each in unit_entries(book.prices)}
    if not book.entries or {_said(each) for each in book.entries} == listed:
        return create_draft(book=book.book, currency=book.currency, prices=book.prices)
    entries = [replace(each, id=uuid7()) for each in book.entries]
    return create_draft(book=book.book, currency=book.currency, entries=entries)


def unit_prices_as_entries(version_id: UUID) -> int:
    """Say a draft's unit prices as entries, so that some can become more than that; how many.

    Nothing happens to a draft that has entries, or to any other version.
    """
    with transaction.atomic():
        draft = (
            PriceBookVersion.objects.select_for_update()
            .filter(id=version_id, status=PriceBookVersion.Status.DRAFT)
            .first()
        )
        if draft is None or draft.entries.exists():
            return 0
        entries = list(unit_entries(unit_prices_stored(draft)))
        store_entries(draft.id, entries)
    return len(entries)


def _said(entry: Entry) -> tuple[str, Match, PriceModel]:
    return entry.meter, entry.match, entry.price_model
