"""The paper of a document: A4, a footer with its name and the number of its pages, and its styles.

Lengths are whole points (1/72 inch): a float has no place in billing, not even here.
"""

import io
from collections.abc import Sequence
from typing import Any

from reportlab.lib.colors import Color, HexColor  # type: ignore[import-untyped]
from reportlab.lib.enums import TA_RIGHT  # type: ignore[import-untyped]
from reportlab.lib.pagesizes import A4  # type: ignore[import-untyped]
from reportlab.lib.styles import ParagraphStyle  # type: ignore[import-untyped]
from reportlab.pdfgen.canvas import Canvas  # type: ignore[import-untyped]
from reportlab.platypus import (  # type: ignore[import-untyped]
    BaseDocTemplate,
    Flowable,
    Frame,
    PageTemplate,
    Paragraph,
    Table,
    TableStyle,
)

from billing.invoicing.documents import Party
from billing.invoicing.pdf.fonts import REGULAR, SEMIBOLD, SETTING, lacks, markup, register

PAGE_WIDTH, PAGE_HEIGHT = int(A4[0]), int(A4[1])
MARGIN, FOOT = 51, 62
WIDTH = PAGE_WIDTH - 2 * MARGIN
INK, MUTED, SHADE = HexColor("#18181b"), HexColor("#6b7280"), HexColor("#e4e4e7")


def style(
    size: int = 9, *, bold: bool = False, colour: Color = INK, right: bool = False
) -> ParagraphStyle:
    """Body text of a size in points."""
    return ParagraphStyle(
        "text",
        fontName=SEMIBOLD if bold else REGULAR,
        fontSize=size,
        leading=size * 7 // 5 + 1,
        textColor=colour,
        alignment=TA_RIGHT if right else 0,
        splitLongWords=1,
    )


BODY, STRONG, SMALL = style(), style(bold=True), style(8, colour=MUTED)
FIGURE, STRONG_FIGURE = style(right=True), style(bold=True, right=True)
HEAD, HEAD_FIGURE = style(8, colour=MUTED), style(8, colour=MUTED, right=True)
TITLE, SECTION = style(20, bold=True), style(11, bold=True)
_BOXES = (
    "An empty box stands for a letter of a script that this document has no font for. The same"
    " document on the customer's page, in the portal, has every letter."
)


def text(words: str, of: ParagraphStyle = BODY, country: str = "") -> Paragraph:
    """A paragraph of plain text, of somebody in a country."""
    return Paragraph(markup(words, country), of)


def boxes(*words: str) -> list[Paragraph]:
    """What a document says where its fonts have not every letter of `words`."""
    return [text(_BOXES, SMALL)] if lacks(*words) else []


def party(title: str, of: Party) -> list[Paragraph]:
    """Who: name, address, country, tax ids."""
    parts = [
        (title, HEAD),
        (of.name, STRONG),
        *((line, BODY) for line in of.address),
        (of.country, BODY),
        *((line, SMALL) for line in of.tax_ids),
        (of.email, SMALL),
    ]
    return [text(words, style_, of.country) for words, style_ in parts if words]


def said_of(of: Party) -> list[str]:
    """What they wrote of themselves."""
    return [of.name, *of.address, of.purchase_order]


def columns(*cells: Any, widths: Sequence[int]) -> Table:
    """Blocks beside each other, without lines."""
    table = Table([list(cells)], colWidths=list(widths))
    table.setStyle(TableStyle([("VALIGN", (0, 0), (-1, -1), "TOP"), *_tight()]))
    return table


def listing(
    rows: Sequence[Sequence[Any]], widths: Sequence[int], *, header: int = 1, foot: int = 0
) -> Table:
    """A table with its header on every page it goes over."""
    table = Table([list(row) for row in rows], colWidths=list(widths), repeatRows=header)
    commands: list[Any] = [
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LEFTPADDING", (0, 0), (0, -1), 0),
        ("RIGHTPADDING", (-1, 0), (-1, -1), 0),
        ("TOPPADDING", (0, 0), (-1, -1), 4),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 4),
        ("LINEBELOW", (0, header - 1), (-1, header - 1), 1, INK),
        ("LINEBELOW", (0, header), (-1, -1 - foot), 1, SHADE),
    ]
    table.setStyle(TableStyle(commands))
    return table


def totals(rows: Sequence[tuple[str, str, bool]], width: int) -> Table:
    """Label and amount to the right; the strong ones above a line."""
    cells, commands = [], _tight()
    for n, (label, amount, strong) in enumerate(rows):
        cells.append(
            [
                text(label, STRONG if strong else BODY),
                text(amount, STRONG_FIGURE if strong else FIGURE),
            ]
        )
        if strong:
            commands.append(("LINEABOVE", (0, n), (-1, n), 1, INK))
    table = Table(cells, colWidths=[width * 3 // 5, width * 2 // 5], hAlign="RIGHT")
    commands += [("TOPPADDING", (0, 0), (-1, -1), 3), ("BOTTOMPADDING", (0, 0), (-1, -1), 3)]
    table.setStyle(TableStyle(commands))
    return table


def pdf_bytes(title: str, author: str, story: Sequence[Flowable], footer: str) -> bytes:
    """The document. Invariant: no instant, no random id is in it."""
    register()
    held = io.BytesIO()
    with SETTING:
        template = BaseDocTemplate(
            held,
            pagesize=A4,
            leftMargin=MARGIN,
            rightMargin=MARGIN,
            topMargin=MARGIN,
            bottomMargin=FOOT,
            title=title,
            author=author,
            creator="Meterplane",
            invariant=1,
            lang="en",
        )
        frame = Frame(MARGIN, FOOT, WIDTH, PAGE_HEIGHT - MARGIN - FOOT, 0, 0, 0, 0)
        template.addPageTemplates(PageTemplate("page", [frame]))
        template.build(list(story), canvasmaker=_numbered(footer))
    return held.getvalue()


def _numbered(footer: str) -> type[Canvas]:
    """A canvas that writes each page's number and how many there are, once that is known."""

    class Numbered(Canvas):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._pages: list[dict[str, Any]] = []

        def showPage(self) -> None:  # noqa: N802  ReportLab's name
            self._pages.append(dict(self.__dict__))
            self._startPage()

        def save(self) -> None:
            for number, page in enumerate(self._pages, start=1):
                self.__dict__.update(page)
                self._foot(number)
                super().showPage()
            super().save()

        def _foot(self, number: int) -> None:
            paragraph = text(footer, SMALL)
            paragraph.wrap(WIDTH * 3 // 4, FOOT)
            paragraph.drawOn(self, MARGIN, FOOT // 2)
            self.setFont(REGULAR, 8)
            self.setFillColor(MUTED)
            page = f"Page {number} of {len(self._pages)}"
            self.drawRightString(PAGE_WIDTH - MARGIN, FOOT // 2 + 3, page)

    return Numbered


def _tight() -> list[Any]:
    return [
        ("LEFTPADDING", (0, 0), (-1, -1), 0),
        ("RIGHTPADDING", (0, 0), (-1, -1), 0),
        ("TOPPADDING", (0, 0), (-1, -1), 0),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 0),
    ]
