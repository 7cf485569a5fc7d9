"""A person says that somebody knows of a finding, and what is done about it. It stays open."""

from uuid import UUID

from billing.payments.models import PaymentFinding
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from tenants.scoping import system_scope

NOTE_CHARS_MAX = 400


def acknowledge(finding_id: UUID, *, by: str, note: str) -> PaymentFinding:
    """Said again, the last note stands.

    Raises `CallerError`: `finding_not_found`, `finding_closed`, `note_invalid`.
    """
    note = note.strip()
    if not note or len(note) > NOTE_CHARS_MAX or "\x00" in note:
        raise CallerError(
            "note_invalid",
            f"Say what is done about it, in 1 to {NOTE_CHARS_MAX} characters.",
            field="note",
        )
    with system_scope("a finding is acknowledged"):
        row: PaymentFinding | None = (
            PaymentFinding.objects.select_for_update().filter(id=finding_id).first()
        )
        if row is None:
            raise CallerError("finding_not_found", "There is no such finding.", status=404)
        if row.closed_at is not None:
            raise CallerError("finding_closed", "It is closed: both sides agree again.", status=409)
        row.acknowledged_at, row.acknowledged_by, row.acknowledgement = clock.now(), by, note
        row.save(update_fields=["acknowledged_at", "acknowledged_by", "acknowledgement"])
    return row
