"""Ours against theirs, line by line, to the cent. Pure; the difference is a text for a person."""

from collections.abc import Sequence
from dataclasses import dataclass

from billing.payments.provider import LineOrder, ProviderInvoice, ProviderLine


@dataclass(frozen=True, slots=True)
class Expected:
    """What must stand at the provider. `on_top_minor` are taxes in the total that are on no line:
    those that the provider computes; None before they are known."""

    customer_id: str
    currency: str
    total_minor: int
    digest: str
    lines: Sequence[LineOrder]
    on_top_minor: int | None = 0


def differences(
    expected: Expected, invoice: ProviderInvoice, lines: Sequence[ProviderLine]
) -> list[str]:
    """Each difference as a sentence; empty when everything agrees."""
    on_top_minor = expected.on_top_minor
    if on_top_minor is None:
        subtotal_minor, total_minor = expected.total_minor, invoice.total_minor
    else:
        subtotal_minor, total_minor = expected.total_minor - on_top_minor, expected.total_minor
    found = []
    for what, ours, theirs in (
        ("customer", expected.customer_id, invoice.customer_id),
        ("currency", expected.currency, invoice.currency),
        ("subtotal", subtotal_minor, invoice.subtotal_minor),
        ("total", total_minor, invoice.total_minor),
        ("digest", expected.digest, invoice.digest),
        ("number of lines", len(expected.lines), len(lines)),
    ):
        if ours != theirs:
            found.append(f"{what}: ours {ours}, theirs {theirs}")
    theirs_by_uid = {line.uid: line for line in lines}
    for line in expected.lines:
        other = theirs_by_uid.pop(line.uid, None)
        if other is None:
            found.append(f"line {line.uid} ({line.description}) is missing there")
        elif (other.amount_minor, other.currency) != (line.amount_minor, expected.currency):
            found.append(
                f"line {line.uid}: ours {line.amount_minor} {expected.currency}, "
                f"theirs {other.amount_minor} {other.currency}"
            )
    found += [
        f"line {line.uid or '(no uid)'} ({line.description}) is there and not ours"
        for line in theirs_by_uid.values()
    ]
    return found
