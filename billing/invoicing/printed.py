"""The PDF of an invoice or a credit note, made when it is asked for. Needs the tenant's door.

An invoice's appendix is its usage by project and key. Where a line's events cannot be listed any
more (archived days), the document says so and leaves that appendix out: it never shows less.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from billing.invoicing.documents import credit_note, invoice_document
from billing.invoicing.invoice_csv import NOT_TOLD_APART
from billing.invoicing.line_events import slice_of
from billing.invoicing.models import InvoiceLine
from meterplane.kernel.errors import CallerError
from meterplane.metering import counted_events
from tenants.queries import list_keys, list_projects

if TYPE_CHECKING:
    from billing.invoicing.pdf.invoice import Appendix

# What sets pages is imported by who prints one: it would be an eighth of what every process that
# serves pages takes to start.


def printed_invoice(invoice_id: UUID, payment: Sequence[str] = ()) -> bytes | None:
    """The invoice as it stands now; None if the tenant has no such invoice. `payment` says how to
    pay it, by lines."""
    from billing.invoicing.pdf.invoice import invoice_pdf

    document = invoice_document(invoice_id)
    return invoice_pdf(document, _appendix(invoice_id), payment) if document else None


def printed_credit_note(note_id: UUID) -> bytes | None:
    """The credit note; None if the tenant has no such note."""
    from billing.invoicing.pdf.credit_note import credit_note_pdf

    note = credit_note(note_id)
    return credit_note_pdf(note) if note else None


def _appendix(invoice_id: UUID) -> "Appendix":
    from billing.invoicing.pdf.invoice import SHARES_MAX, Appendix, Share

    lines = InvoiceLine.objects.filter(invoice_id=invoice_id).select_related("invoice__period")
    projects = {project.id: project.name for project in list_projects()}
    keys = {key.id: key.name for key in list_keys()}
    shares: list[Share] = []
    for line in lines.order_by("position"):
        try:
            by_key = _by_key(line)
        except CallerError as archived:
            return Appendix((), note=archived.message)
        for (project_id, key_id), units in by_key.items():
            project = projects.get(project_id, str(project_id))
            shares.append(Share(line.position, project, keys.get(key_id, str(key_id)), units))
        rest = int(line.quantity) - sum(by_key.values()) if by_key else 0
        if rest:
            shares.append(Share(line.position, NOT_TOLD_APART, "", rest))
    return Appendix(shares[:SHARES_MAX], left_out=max(0, len(shares) - SHARES_MAX))


def _by_key(line: InvoiceLine) -> dict[tuple[UUID, UUID], int]:
    part = slice_of(line, line.invoice)
    if part is None:
        return {}
    units: dict[tuple[UUID, UUID], int] = defaultdict(int)
    for share in counted_events.by_key_and_day(part):
        units[share.project_id, share.key_id] += share.units
    return dict(sorted(units.items(), key=lambda each: (-each[1], each[0])))
