"""The addresses of all pages, as one table."""

from starlette.routing import Route

from stripe_sandbox import (
    checkout_pages,
    object_pages,
    overview_pages,
    pages,
    pdf_pages,
    portal_pages,
)

_INVOICE = "/i/acct_sandbox/{token}"
_CHECKOUT = "/c/pay/{id}"
_QUESTION = "/authenticate/acct_sandbox/{token}"
_PORTAL = "/p/session/{token}"

ROUTES = (
    Route("/", overview_pages.home),
    Route("/events", overview_pages.list_events),
    Route("/events/{id}", overview_pages.show_event),
    Route("/events/{id}/resend", overview_pages.resend_event, methods=["POST"]),
    Route("/objects/{id}", object_pages.show),
    Route(_INVOICE, pages.show),
    Route(f"{_INVOICE}/pay", pages.pay, methods=["POST"]),
    Route(f"{_INVOICE}/authenticate", pages.authenticate, methods=["POST"]),
    Route(f"{_INVOICE}/pdf", pdf_pages.invoice),
    Route("/credit_notes/acct_sandbox/{token}/pdf", pdf_pages.credit_note),
    Route("/receipts/acct_sandbox/{token}", checkout_pages.receipt),
    Route(_CHECKOUT, checkout_pages.show),
    Route(f"{_CHECKOUT}/card", checkout_pages.use_card, methods=["POST"]),
    Route(f"{_CHECKOUT}/authenticate", checkout_pages.authenticate, methods=["POST"]),
    Route(_QUESTION, checkout_pages.ask),
    Route(_QUESTION, checkout_pages.answer, methods=["POST"]),
    Route(_PORTAL, portal_pages.show),
    Route(f"{_PORTAL}/card", portal_pages.add_card, methods=["POST"]),
    Route(f"{_PORTAL}/authenticate", portal_pages.authenticate, methods=["POST"]),
    Route(f"{_PORTAL}/change", portal_pages.change_card, methods=["POST"]),
)
