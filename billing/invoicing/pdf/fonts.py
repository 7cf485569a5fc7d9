"""Text of any script in the fonts a document has.

Inter is embedded and has Latin, Greek, Cyrillic, Vietnamese and the signs of currencies. Chinese,
Japanese and Korean are too many glyphs to ship: their letters are set in the standard fonts of PDF
readers (Adobe-GB1, -Japan1, -Korea1), which are named and not embedded. A letter that neither has
is shown as Inter's empty box: visibly missing, never dropped.
"""

import threading
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from xml.sax.saxutils import escape

from reportlab.pdfbase import pdfmetrics  # type: ignore[import-untyped]
from reportlab.pdfbase.cidfonts import UnicodeCIDFont  # type: ignore[import-untyped]
from reportlab.pdfbase.ttfonts import TTFont  # type: ignore[import-untyped]

REGULAR, SEMIBOLD = "Inter", "Inter-SemiBold"
_FILES = Path(__file__).parents[1] / "fonts"
_CHINESE, _JAPANESE, _KOREAN = "STSong-Light", "HeiseiKakuGo-W5", "HYGothic-Medium"
# ReportLab keeps fonts, and which glyphs of one a document uses, in the process.
SETTING = threading.Lock()


@lru_cache(maxsize=1)
def register() -> frozenset[int]:
    """Load the fonts once; the code points Inter has."""
    regular = TTFont(REGULAR, _FILES / "Inter-Regular.ttf")
    pdfmetrics.registerFont(regular)
    pdfmetrics.registerFont(TTFont(SEMIBOLD, _FILES / "Inter-SemiBold.ttf"))
    pdfmetrics.registerFontFamily(REGULAR, REGULAR, SEMIBOLD, REGULAR, SEMIBOLD)
    for name in (_CHINESE, _JAPANESE, _KOREAN):
        pdfmetrics.registerFont(UnicodeCIDFont(name))
    return frozenset(regular.face.charToGlyph)


def markup(text: str) -> str:
    """`text` for a paragraph: escaped, and each run of letters in a font that has them."""
    parts = []
    for font, run in _runs(text):
        parts.append(
            escape(run) if font == REGULAR else f'<font name="{font}">{escape(run)}</font>'
        )
    return "".join(parts)


def _runs(text: str) -> Iterator[tuple[str, str]]:
    known = register()
    is_japanese = any(_name(letter).startswith(("HIRAGANA", "KATAKANA")) for letter in text)
    run, font = "", REGULAR
    for letter in text:
        of = REGULAR if ord(letter) in known else _reader_font(letter, is_japanese)
        if of != font and run:
            yield font, run
            run = ""
        font, run = of, run + letter
    if run:
        yield font, run


def _reader_font(letter: str, is_japanese: bool) -> str:
    name = _name(letter)
    if "HANGUL" in name:
        return _KOREAN
    if "HIRAGANA" in name or "KATAKANA" in name:
        return _JAPANESE
    if name.startswith(("CJK", "IDEOGRAPHIC", "FULLWIDTH")):
        return _JAPANESE if is_japanese else _CHINESE
    return REGULAR


def _name(letter: str) -> str:
    return unicodedata.name(letter, "")
