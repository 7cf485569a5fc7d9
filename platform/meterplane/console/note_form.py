"""What an operator says to give back of an invoice: of each line an amount or a quantity.

What is left of each line stands beside its fields. What is typed is read exactly, and refused in
its place; the rest is for `create_credit_note` to refuse, and its words are shown there too.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django import forms
from unfold.widgets import (
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanWidget,
)

from billing.invoicing.credit import MEMO_CHARS_MAX, LineAsked
from billing.invoicing.credited import LineLeft
from billing.invoicing.models import CreditNote, Invoice, InvoiceLine
from meterplane.console import typed
from meterplane.kernel import amounts
from meterplane.kernel.decimals import EXACT
from meterplane.kernel.errors import CallerError
from meterplane.kernel.ids import uuid7

_OF_LINE = re.compile(r"lines\[(\d+)\](?:\.(amount|quantity))?")
_EFFECTS = {
    Invoice.Status.OPEN: ("lowers_due",),
    Invoice.Status.PAID: ("refund", "balance"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the invoice as the form shows it; without fields where nothing of it is left."""

    line: InvoiceLine
    amount: str
    left: str
    units_left: str
    amount_field: Any
    quantity_field: Any


def _name() -> str:
    return f"console:{uuid7()}"


class NoteForm(forms.Form):
    """Lines and words of a credit note. It carries the name of its note, so that sent twice it
    makes one."""

    everything = forms.BooleanField(
        required=False,
        widget=UnfoldBooleanWidget,
        label="All that is left of every line",
    )
    reason = forms.ChoiceField(choices=CreditNote.Reason.choices, widget=UnfoldAdminSelectWidget)
    effect = forms.ChoiceField(
        widget=UnfoldAdminSelectWidget,
        help_text="Of an open invoice less is due. Of a paid one the money is to be refunded, or is"
        " kept as purchased credit.",
    )
    memo = forms.CharField(
        required=False,
        max_length=MEMO_CHARS_MAX,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}),
        help_text="The customer reads it on the credit note.",
    )
    named = forms.CharField(widget=forms.HiddenInput, initial=_name, required=False)

    def __init__(
        self,
        data: Mapping[str, Any] | None,
        *,
        invoice: Invoice,
        lines: Sequence[InvoiceLine],
        left: Mapping[UUID, LineLeft],
    ) -> None:
        super().__init__(data)
        self.invoice, self._lines, self._left = invoice, lines, left
        self.asked: list[LineAsked] | None = None
        labels = dict(CreditNote.Effect.choices)
        self.fields["effect"].choices = [  # type: ignore[attr-defined]
            (each, labels[each]) for each in _EFFECTS.get(Invoice.Status(invoice.status), ())
        ]
        for line in lines:
            each = left[line.id]
            if each.left_minor:
                self.fields[f"amount_{line.position}"] = _cell(f"Amount of line {line.position}")
            if each.left_minor and line.meter and each.quantity_left > 0:
                self.fields[f"quantity_{line.position}"] = _cell(
                    f"Quantity of line {line.position}"
                )

    @property
    def rows(self) -> list[Row]:
        """Every line with its two fields."""
        currency = self.invoice.currency
        return [
            Row(
                line,
                amounts.minor(line.amount_minor, currency),
                amounts.minor(self._left[line.id].left_minor, currency),
                self._units_left(line),
                self._field(f"amount_{line.position}"),
                self._field(f"quantity_{line.position}"),
            )
            for line in self._lines
        ]

    @property
    def words(self) -> list[Any]:
        """The fields that are not of a line."""
        return [self[name] for name in ("everything", "reason", "effect", "memo", "named")]

    def clean(self) -> dict[str, Any]:
        """Reads what was typed of each line into `asked`."""
        said: dict[str, Any] = super().clean() or self.cleaned_data
        asked = []
        for line in self._lines:
            try:
                found = self._asked_of(line, said)
            except CallerError as wrong:
                self.add_error(wrong.field, wrong.message)
                continue
            if found is not None:
                asked.append(found)
        if self.errors:
            return said
        if said["everything"] and asked:
            message = "All that is left, or amounts of lines: not both."
            raise forms.ValidationError({"everything": message})
        if not said["everything"] and not asked:
            raise forms.ValidationError(
                "Say what to give back: an amount or a quantity of at least one line, or all that"
                " is left."
            )
        self.asked = None if said["everything"] else asked
        return said

    def refuse(self, refused: CallerError) -> None:
        """Show what the verb refused, beside the field of the line it is about."""
        field: str | None = refused.field if refused.field in self.fields else None
        of_line = _OF_LINE.match(refused.field or "")
        if of_line is not None and self.asked is not None:
            asked = self.asked[int(of_line[1])]
            line = next(each for each in self._lines if each.id == asked.line_id)
            kind = of_line[2] or ("amount" if asked.quantity is None else "quantity")
            field = f"{kind}_{line.position}"
        self.add_error(field, refused.message)

    def _asked_of(self, line: InvoiceLine, said: Mapping[str, Any]) -> LineAsked | None:
        amount, quantity = f"amount_{line.position}", f"quantity_{line.position}"
        if said.get(amount) and said.get(quantity):
            raise CallerError("", "An amount or a quantity, not both.", field=amount)
        if said.get(amount):
            minor = typed.minor(said[amount], self.invoice.currency, amount)
            return LineAsked(line.id, amount_minor=minor)
        if said.get(quantity):
            return LineAsked(line.id, quantity=typed.quantity(said[quantity], quantity))
        return None

    def _units_left(self, line: InvoiceLine) -> str:
        if f"quantity_{line.position}" not in self.fields:
            return ""
        return f"{self._left[line.id].quantity_left.normalize(EXACT):,f}"

    def _field(self, name: str) -> Any:
        return self[name] if name in self.fields else None


def _cell(label: str) -> forms.CharField:
    return forms.CharField(
        required=False, max_length=40, label=label,
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal", "aria-label": label}),
    )  # fmt: skip
