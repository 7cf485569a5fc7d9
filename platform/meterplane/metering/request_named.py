"""The one request that an id names, or a sentence that says why there is none."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.kernel.ids import minted_at_ms
from meterplane.metering.queries import RequestRow, request_by_id
from meterplane.metering.reading import events_kept, kept_in_words

# What an id says of its own instant is believed between these: others were not minted by a gateway.
_FIRST = datetime(2020, 1, 1, tzinfo=UTC)
_AHEAD = timedelta(days=1)


def request_named(text: str) -> RequestRow:
    """The request of the open door whose id is `text`.

    Raises `CallerError`: `invalid_request_id` for what no gateway answers as `x-request-id`,
    `request_not_found` (404) otherwise, of another organisation's as of none.
    """
    request_id = _parsed(text.strip())
    row = request_by_id(request_id)
    if row is not None:
        return row
    days = f"Requests are kept {kept_in_words()}"
    minted_at = clock.from_ms(minted_at_ms(request_id))
    if minted_at < clock.now() - events_kept():
        said = f"This request came in on {minted_at.day} {minted_at:%B %Y}. {days}."
    else:
        said = f"No request has this id here. {days}, and shown a few seconds after they end."
    raise CallerError("request_not_found", said, status=404, field="request_id")


def _parsed(text: str) -> UUID:
    try:
        request_id = UUID(text)
        minted_at = clock.from_ms(minted_at_ms(request_id)) if request_id.version == 7 else None
    except (ValueError, OverflowError):
        minted_at = None
    if minted_at is None or not _FIRST <= minted_at < clock.now() + _AHEAD:
        raise CallerError(
            "invalid_request_id",
            "This is no request id: it looks like 019a4b1c-5d6e-7f80-9a1b-2c3d4e5f6071, and is the"
            f" x-request-id of an answer. Requests are kept {kept_in_words()}.",
            field="request_id",
        )
    return request_id
