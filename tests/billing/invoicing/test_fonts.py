"""Names of any script on a document: in a font that has them, or told that there is none."""

import re

import pytest

from billing.invoicing.documents import CreditNoteView, Party
from billing.invoicing.pdf import sheet
from billing.invoicing.pdf.credit_note import credit_note_pdf
from billing.invoicing.pdf.fonts import lacks, markup
from meterplane.kernel.ids import uuid7
from tests.billing.world import utc

CHINESE, TRADITIONAL, JAPANESE, KOREAN = (
    "STSong-Light", "MSung-Light", "HeiseiKakuGo-W5", "HYGothic-Medium",
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "country", "fonts"),
    [
        ("Łódzka Οίκος Кофе ₹", "", []),
        ("计量平面有限公司", "", [CHINESE]),
        ("計量平面有限公司", "TW", [TRADITIONAL]),
        ("計量平面有限公司", "HK", [TRADITIONAL]),
        ("日本計量株式会社", "JP", [JAPANESE]),
        ("株式会社メーター", "", [JAPANESE]),
        ("株式会社メーター", "TW", [JAPANESE]),  # kana say more than the country
        ("주식회사 미터", "", [KOREAN, KOREAN]),
        ("大韓 주식회사", "", [KOREAN, KOREAN]),
        ("大韓", "KR", [KOREAN]),
        ("Acme 中国 GmbH & Co", "DE", [CHINESE]),
        ("한국 メーター 中国", "", [KOREAN, JAPANESE, JAPANESE]),
    ],
)
def test_each_run_of_letters_is_in_a_font_that_has_them(text, country, fonts):
    told = markup(text, country)
    assert re.findall(r'<font name="([^"]*)">', told) == fonts
    assert re.sub(r"<[^>]*>", "", told) == text.replace("&", "&amp;")
    assert not lacks(text)


@pytest.mark.parametrize("text", ["شركة", "חברה", "บริษัท", "कंपनी", "𠮷野家"])
def test_what_no_font_has_is_known_and_kept(text):
    assert lacks("Acme", f"Acme {text}")
    assert text[0] in markup(text)


def note(name: str) -> CreditNoteView:
    return CreditNoteView(
        id=uuid7(), number="ACME-CN-000001", invoice_id=uuid7(), invoice_number="ACME-000001",
        reason="other", memo="", effect="refund", currency="EUR", subtotal_minor=100,
        tax_exclusive_minor=0, tax_inclusive_minor=0, total_minor=100, created_at=utc(11, 5),
        buyer=Party(name, country="TW"), seller=Party("Meterplane Ltd"),
    )  # fmt: skip


@pytest.mark.parametrize(("name", "is_told"), [("شركة", True), ("計量平面", False)])
def test_a_document_with_boxes_says_what_they_are(monkeypatch, name, is_told):
    written = []

    def seen(words, country=""):
        written.append(words)
        return markup(words, country)

    monkeypatch.setattr(sheet, "markup", seen)
    printed = credit_note_pdf(note(name))
    assert any(words.startswith("An empty box stands for") for words in written) is is_told
    assert (b"/MSung-Light" in printed) is not is_told
