"""Text of any script in the fonts a document has.

Inter is embedded and has Latin, Greek, Cyrillic, Vietnamese and the signs of currencies. Chinese,
Japanese and Korean are too many glyphs to ship: their letters are set in the standard fonts of PDF
readers (Adobe-GB1, -CNS1, -Japan1, -Korea1), which are named and not embedded: a reader without
them shows none. One code point looks different in each of these languages; which is meant is told
by kana or hangul beside it, else by the country. A letter that no font has is Inter's empty box:
visibly missing, never dropped, and the document says so (`lacks`).
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
_CHINESE, _TRADITIONAL = "STSong-Light", "MSung-Light"
_JAPANESE, _KOREAN = "HeiseiKakuGo-W5", "HYGothic-Medium"
_BY_COUNTRY = {
    "JP": _JAPANESE, "KR": _KOREAN, "KP": _KOREAN,
    "TW": _TRADITIONAL, "HK": _TRADITIONAL, "MO": _TRADITIONAL,
}  # fmt: skip
_LAST_IN_TWO_BYTES = 0xFFFF  # further letters have no code in readers' fonts
# ReportLab keeps fonts, and which glyphs of one a document uses, in the process.
SETTING = threading.Lock()


@lru_cache(maxsize=1)
def register() -> frozenset[int]:
    """Load the fonts once; the code points Inter has."""
    regular = TTFont(REGULAR, _FILES / "Inter-Regular.ttf")
    pdfmetrics.registerFont(regular)
    pdfmetrics.registerFont(TTFont(SEMIBOLD, _FILES / "Inter-SemiBold.ttf"))
    pdfmetrics.registerFontFamily(REGULAR, REGULAR, SEMIBOLD, REGULAR, SEMIBOLD)
    for name in (_CHINESE, _TRADITIONAL, _JAPANESE, _KOREAN):
        pdfmetrics.registerFont(UnicodeCIDFont(name))
    return frozenset(regular.face.charToGlyph)


def markup(text: str, country: str = "") -> str:
    """`text` for a paragraph: escaped, and each run of letters in a font that has them."""
    parts = []
    for font, run in _runs(text, country):
        parts.append(
            escape(run) if font == REGULAR else f'<font name="{font}">{escape(run)}</font>'
        )
    return "".join(parts)


def lacks(*texts: str) -> bool:
    """Whether some letter of them is shown as a box."""
    known = register()
    return any(
        _font(letter, known, _CHINESE) is None
        for text in texts
        for letter in text
        if not letter.isspace() and unicodedata.category(letter) != "Cf"
    )


def _runs(text: str, country: str) -> Iterator[tuple[str, str]]:
    known = register()
    shared = _font_of_han(text, country)
    run, font = "", REGULAR
    for letter in text:
        of = _font(letter, known, shared) or REGULAR
        if of != font and run:
            yield font, run
            run = ""
        font, run = of, run + letter
    if run:
        yield font, run


def _font(letter: str, known: frozenset[int], shared: str) -> str | None:
    """A font that has the letter; `shared` is that of what these languages write alike."""
    if ord(letter) in known:
        return REGULAR
    if ord(letter) > _LAST_IN_TWO_BYTES:
        return None
    name = _name(letter)
    if "HANGUL" in name:
        return _KOREAN
    if "HIRAGANA" in name or "KATAKANA" in name:
        return _JAPANESE
    return shared if name.startswith(("CJK", "IDEOGRAPHIC", "FULLWIDTH")) else None


def _font_of_han(text: str, country: str) -> str:
    names = [_name(letter) for letter in text]
    if any(name.startswith(("HIRAGANA", "KATAKANA")) for name in names):
        return _JAPANESE
    if any(name.startswith("HANGUL") for name in names):
        return _KOREAN
    return _BY_COUNTRY.get(country, _CHINESE)


def _name(letter: str) -> str:
    return unicodedata.name(letter, "")
