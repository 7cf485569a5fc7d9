"""A page of plain text as a PDF, written by hand: enough for a link that must lead to a file.

Helvetica, one size, one page after another; characters outside Latin-1 become `?`. The documents
people keep are the product's own; this is the stand-in's.
"""

from collections.abc import Sequence

LINES_PER_PAGE = 52
_LEADING, _TOP, _LEFT = 14, 790, 56
_ESCAPED = str.maketrans({"\\": r"\\", "(": r"\(", ")": r"\)"})


def written(lines: Sequence[str]) -> bytes:
    """The file."""
    pages = [
        lines[start : start + LINES_PER_PAGE]
        for start in range(0, max(len(lines), 1), LINES_PER_PAGE)
    ]
    first_page = 4  # 1 catalogue, 2 page tree, 3 font, then page and content by turns
    kids = " ".join(f"{first_page + 2 * place} 0 R" for place in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    for place, page in enumerate(pages):
        text = "".join(f"({line.translate(_ESCAPED)}) Tj T*\n" for line in page)
        content = f"BT /F1 10 Tf {_LEADING} TL {_LEFT} {_TOP} Td\n{text}ET".encode(
            "latin-1", "replace"
        )
        objects += [
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents "
            f"{first_page + 2 * place + 1} 0 R /Resources << /Font << /F1 3 0 R >> >> >>".encode(),
            b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
        ]
    body, offsets = b"%PDF-1.4\n", []
    for number, each in enumerate(objects, start=1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, each)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return body + (
        b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(objects) + 1, table)
        + b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n"
        % (len(objects) + 1, len(body))
    )
