"""The hosted invoice page: what it shows, that it pays, and that it says SANDBOX."""

import re

import pytest
import requests

from stripe_sandbox.page_frame import money
from tests.stripe_sandbox.rig import Answered, Books, Sandbox


def _page(sandbox: Sandbox, books: Books, invoice: str) -> tuple[str, Answered]:
    url = books.client.v1.invoices.retrieve(invoice).hosted_invoice_url
    assert url is not None
    assert url.startswith(sandbox.url)
    path = url.removeprefix(sandbox.url)
    return path, sandbox.request("GET", path, key=None)


def test_the_page_shows_the_invoice_and_says_sandbox(sandbox: Sandbox, books: Books):
    customer = books.customer(card=None, name="<b>Acme</b> & Sons")
    draft = books.draft(customer, 123_456, -56)
    books.client.v1.invoices.finalize_invoice(draft)
    _, page = _page(sandbox, books, draft)
    assert page.status == 200
    assert "SANDBOX" in page.text
    assert "&lt;b&gt;Acme&lt;/b&gt; &amp; Sons" in page.text
    assert "<b>Acme" not in page.text
    for shown in ("$1,234.56", "−$0.56", "$1,234.00", "Open", "Pay $1,234.00"):  # noqa: RUF001
        assert shown in page.text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "<script" not in page.text


@pytest.mark.parametrize(
    ("card", "shows", "status"),
    [
        ("4242424242424242", "This invoice is paid", "paid"),
        ("4000000000000341", "Your card was declined.", "open"),
        ("4000000000009995", "insufficient funds", "open"),
    ],
)
def test_a_test_card_pays_or_is_declined_on_the_page(
    sandbox: Sandbox, books: Books, card: str, shows: str, status: str
):
    draft = books.draft(books.customer(card=None), 1200)
    books.client.v1.invoices.finalize_invoice(draft)
    path, page = _page(sandbox, books, draft)
    assert f"value={card}" in page.text
    done = sandbox.request("POST", f"{path}/pay", {"card": card}, key=None)
    assert (done.status, done.headers["Location"]) == (303, path)
    assert shows in sandbox.request("GET", path, key=None).text
    assert books.client.v1.invoices.retrieve(draft).status == status
    event = "invoice.payment_succeeded" if status == "paid" else "invoice.payment_failed"
    assert books.events_about(draft).count(event) == 1


@pytest.mark.parametrize(("answer", "status"), [("approve", "paid"), ("fail", "open")])
def test_the_holder_authenticates_on_the_page(
    sandbox: Sandbox, books: Books, answer: str, status: str
):
    draft = books.draft(books.customer(card=None), 1200)
    books.client.v1.invoices.finalize_invoice(draft)
    path, _ = _page(sandbox, books, draft)
    sandbox.request("POST", f"{path}/pay", {"card": "4000002760003184"}, key=None)
    assert "Complete authentication" in sandbox.request("GET", path, key=None).text
    sandbox.request("POST", f"{path}/authenticate", {"answer": answer}, key=None)
    assert books.client.v1.invoices.retrieve(draft).status == status


def test_paying_twice_on_the_page_charges_once(sandbox: Sandbox, books: Books):
    draft = books.draft(books.customer(card=None), 1200)
    books.client.v1.invoices.finalize_invoice(draft)
    path, _ = _page(sandbox, books, draft)
    for _ in range(2):
        sandbox.request("POST", f"{path}/pay", {"card": "4242424242424242"}, key=None)
    assert books.events_about(draft).count("invoice.paid") == 1


def test_other_card_numbers_and_other_addresses_lead_nowhere(sandbox: Sandbox, books: Books):
    draft = books.in_status("open")
    path, _ = _page(sandbox, books, draft)
    real = sandbox.request("POST", f"{path}/pay", {"card": "4111111111111111"}, key=None)
    assert real.status == 400
    assert sandbox.request("GET", f"{path}x", key=None).status == 404
    assert sandbox.request("POST", f"{path}x/pay", {"card": "4242424242424242"}).status == 404
    assert sandbox.request("POST", f"{path}/pay", {"card": "4" * 2_000}, key=None).status == 413
    assert books.client.v1.invoices.retrieve(draft).status == "open"


@pytest.mark.parametrize(
    ("status", "shows"),
    [("void", "nothing is owed"), ("paid", "is paid"), ("uncollectible", "Pay with a test card")],
)
def test_finished_invoices_say_so(sandbox: Sandbox, books: Books, status: str, shows: str):
    _, page = _page(sandbox, books, books.in_status(status))
    assert shows in page.text


def test_the_front_page_lists_the_latest_invoices(sandbox: Sandbox, books: Books):
    number = books.client.v1.invoices.retrieve(books.in_status("open")).number
    front = sandbox.request("GET", "/", key=None)
    assert front.status == 200
    assert "SANDBOX" in front.text
    assert re.search(rf"<a href='/i/acct_sandbox/test_\w+'>{number}</a>", front.text)


@pytest.mark.parametrize(
    ("amount", "currency", "shown"),
    [
        (0, "usd", "$0.00"),
        (-5, "usd", "−$0.05"),  # noqa: RUF001
        (123_456_789, "eur", "€1,234,567.89"),
        (1_500, "jpy", "¥1,500"),
        (1_234, "kwd", "1.234 KWD"),
        (990, "sek", "9.90 SEK"),
    ],
)
def test_amounts_are_written_in_their_currencys_digits(amount: int, currency: str, shown: str):
    assert money(amount, currency) == shown


def test_the_pdf_links_lead_to_pdfs_with_the_figures(sandbox: Sandbox, books: Books):
    invoice = books.draft(books.customer(name="Société (Paris)"), *range(100, 160))
    finalized = books.client.v1.invoices.finalize_invoice(invoice)
    note = books.client.v1.credit_notes.create({"invoice": invoice, "amount": 99, "memo": "Sorry"})
    for link, shown in (
        (str(finalized.invoice_pdf), (b"Soci\xe9t\xe9 \\(Paris\\)", b"$77.70", b"/Count 2")),
        (note.pdf, (b"-CN-01", b"$0.99", b"Sorry", b"/Count 1")),
    ):
        answer = requests.get(link, timeout=5)
        assert answer.headers["Content-Type"] == "application/pdf"
        assert answer.content.startswith(b"%PDF-1.4")
        for each in (*shown, b"SANDBOX"):
            assert each in answer.content
        start = int(answer.content.rsplit(b"startxref\n", 1)[1].split(b"\n")[0])
        assert answer.content[start : start + 4] == b"xref"


def test_a_paid_invoice_links_its_receipt(sandbox: Sandbox, books: Books):
    _, page = _page(sandbox, books, books.in_status("paid"))
    found = re.search(r"<a href='([^']+)'>Receipt</a>", page.text)
    assert found is not None
    receipt = requests.get(found[1], timeout=5).text
    for shown in ("$12.00", "Visa •••• 4242", "Paid"):
        assert shown in receipt
