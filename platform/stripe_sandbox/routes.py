"""Every call the sandbox simulates, as one table. What is not here is answered 404 and logged."""

from collections.abc import Callable
from dataclasses import dataclass

from stripe_sandbox import (
    account_transactions,
    accounts,
    balance_transactions,
    charges,
    checkout_sessions,
    credit_notes,
    customers,
    disputes,
    events,
    invoice_line_edits,
    invoice_lines,
    invoice_previews,
    invoice_search,
    invoice_states,
    invoices,
    own_payment_intents,
    payment_intents,
    payment_methods,
    payments,
    portal_sessions,
    prices,
    products,
    refunds,
    setup_intents,
    tax_rates,
    test_clocks,
    thin_events,
    webhook_endpoints,
)
from stripe_sandbox.call import Answer, Call
from stripe_sandbox.params import Takes
from stripe_sandbox.store import Document


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A verb and a path, what it takes, and the act behind it."""

    method: str
    path: str
    takes: Takes
    act: Callable[[Call], Document | Answer]


def _under(
    path: str,
    *acts: tuple[str, str, Takes, Callable[[Call], Document | Answer]],
) -> tuple[Endpoint, ...]:
    return tuple(
        Endpoint(method, f"/v1/{path}{tail}", takes, act) for method, tail, takes, act in acts
    )


ENDPOINTS: tuple[Endpoint, ...] = (
    *_under("account", ("GET", "", accounts.RETRIEVE, accounts.retrieve)),
    *_under(
        "customers",
        ("POST", "", customers.CREATE, customers.create),
        ("GET", "", customers.LIST, customers.list_all),
        ("GET", "/{id}", customers.RETRIEVE, customers.retrieve),
        ("POST", "/{id}", customers.UPDATE, customers.update),
        ("DELETE", "/{id}", customers.DELETE, customers.delete),
        (
            "GET",
            "/{id}/payment_methods",
            payment_methods.LIST_OF_CUSTOMER,
            payment_methods.list_of_customer,
        ),
    ),
    *_under(
        "customers/{id}/balance_transactions",
        ("POST", "", balance_transactions.CREATE, balance_transactions.create),
        ("GET", "", balance_transactions.LIST, balance_transactions.list_all),
        ("GET", "/{transaction}", balance_transactions.RETRIEVE, balance_transactions.retrieve),
        ("POST", "/{transaction}", balance_transactions.UPDATE, balance_transactions.update),
    ),
    *_under(
        "payment_methods",
        ("POST", "", payment_methods.CREATE, payment_methods.create),
        ("GET", "", payment_methods.LIST, payment_methods.list_all),
        ("GET", "/{id}", payment_methods.RETRIEVE, payment_methods.retrieve),
        ("POST", "/{id}", payment_methods.UPDATE, payment_methods.update),
        ("POST", "/{id}/attach", payment_methods.ATTACH, payment_methods.attach),
        ("POST", "/{id}/detach", payment_methods.DETACH, payment_methods.detach),
    ),
    *_under(
        "invoices",
        ("POST", "", invoices.CREATE, invoices.create),
        ("GET", "", invoices.LIST, invoices.list_all),
        ("POST", "/create_preview", invoice_previews.CREATE, invoice_previews.create),
        ("GET", "/search", invoice_search.SEARCH, invoice_search.search),
        ("GET", "/{id}", invoices.RETRIEVE, invoices.retrieve),
        ("POST", "/{id}", invoices.UPDATE, invoices.update),
        ("DELETE", "/{id}", invoices.DELETE, invoices.delete),
        ("POST", "/{id}/add_lines", invoice_lines.ADD_LINES, invoice_lines.add_lines),
        (
            "POST",
            "/{id}/update_lines",
            invoice_line_edits.UPDATE_LINES,
            invoice_line_edits.update_lines,
        ),
        (
            "POST",
            "/{id}/remove_lines",
            invoice_line_edits.REMOVE_LINES,
            invoice_line_edits.remove_lines,
        ),
        ("GET", "/{id}/lines", invoice_lines.LIST_LINES, invoice_lines.list_lines),
        (
            "POST",
            "/{id}/lines/{line}",
            invoice_line_edits.UPDATE_LINE,
            invoice_line_edits.update_line,
        ),
        ("POST", "/{id}/send", invoice_states.SEND, invoice_states.send),
        ("POST", "/{id}/finalize", invoice_states.FINALIZE, invoice_states.finalize),
        ("POST", "/{id}/pay", payments.PAY, payments.pay),
        ("POST", "/{id}/void", invoice_states.VOID, invoice_states.void),
        (
            "POST",
            "/{id}/mark_uncollectible",
            invoice_states.MARK_UNCOLLECTIBLE,
            invoice_states.mark_uncollectible,
        ),
    ),
    *_under(
        "invoiceitems",
        ("POST", "", invoice_lines.CREATE_ITEM, invoice_lines.create_item),
        ("GET", "", invoice_lines.LIST_ITEMS, invoice_lines.list_items),
        ("GET", "/{id}", invoice_lines.RETRIEVE_ITEM, invoice_lines.retrieve_item),
        ("POST", "/{id}", invoice_line_edits.UPDATE_ITEM, invoice_line_edits.update_item),
        ("DELETE", "/{id}", invoice_line_edits.DELETE_ITEM, invoice_line_edits.delete_item),
    ),
    *_under(
        "invoice_payments",
        ("GET", "", payment_intents.LIST_LINKS, payment_intents.list_links),
        ("GET", "/{id}", payment_intents.RETRIEVE_LINK, payment_intents.retrieve_link),
    ),
    *_under(
        "payment_intents",
        ("POST", "", own_payment_intents.CREATE, own_payment_intents.create),
        ("GET", "", payment_intents.LIST, payment_intents.list_all),
        ("GET", "/{id}", payment_intents.RETRIEVE, payment_intents.retrieve),
        ("POST", "/{id}", own_payment_intents.UPDATE, own_payment_intents.update),
        ("POST", "/{id}/confirm", own_payment_intents.CONFIRM, own_payment_intents.confirm),
        ("POST", "/{id}/cancel", own_payment_intents.CANCEL, own_payment_intents.cancel),
    ),
    *_under(
        "setup_intents",
        ("POST", "", setup_intents.CREATE, setup_intents.create),
        ("GET", "", setup_intents.LIST, setup_intents.list_all),
        ("GET", "/{id}", setup_intents.RETRIEVE, setup_intents.retrieve),
        ("POST", "/{id}", setup_intents.UPDATE, setup_intents.update),
        ("POST", "/{id}/confirm", setup_intents.CONFIRM, setup_intents.confirm),
        ("POST", "/{id}/cancel", setup_intents.CANCEL, setup_intents.cancel),
    ),
    *_under(
        "checkout/sessions",
        ("POST", "", checkout_sessions.CREATE, checkout_sessions.create),
        ("GET", "", checkout_sessions.LIST, checkout_sessions.list_all),
        ("GET", "/{id}", checkout_sessions.RETRIEVE, checkout_sessions.retrieve),
        ("POST", "/{id}", checkout_sessions.UPDATE, checkout_sessions.update),
        ("POST", "/{id}/expire", checkout_sessions.EXPIRE, checkout_sessions.expire),
        ("GET", "/{id}/line_items", checkout_sessions.LIST_LINES, checkout_sessions.list_lines),
    ),
    *_under(
        "billing_portal",
        ("POST", "/sessions", portal_sessions.CREATE, portal_sessions.create),
        (
            "POST",
            "/configurations",
            portal_sessions.CREATE_CONFIGURATION,
            portal_sessions.create_configuration,
        ),
        (
            "GET",
            "/configurations",
            portal_sessions.LIST_CONFIGURATIONS,
            portal_sessions.list_configurations,
        ),
        (
            "GET",
            "/configurations/{id}",
            portal_sessions.RETRIEVE_CONFIGURATION,
            portal_sessions.retrieve_configuration,
        ),
        (
            "POST",
            "/configurations/{id}",
            portal_sessions.UPDATE_CONFIGURATION,
            portal_sessions.update_configuration,
        ),
    ),
    *_under(
        "products",
        ("POST", "", products.CREATE, products.create),
        ("GET", "", products.LIST, products.list_all),
        ("GET", "/{id}", products.RETRIEVE, products.retrieve),
        ("POST", "/{id}", products.UPDATE, products.update),
    ),
    *_under(
        "prices",
        ("POST", "", prices.CREATE, prices.create),
        ("GET", "", prices.LIST, prices.list_all),
        ("GET", "/{id}", prices.RETRIEVE, prices.retrieve),
        ("POST", "/{id}", prices.UPDATE, prices.update),
    ),
    *_under(
        "tax_rates",
        ("POST", "", tax_rates.CREATE, tax_rates.create),
        ("GET", "", tax_rates.LIST, tax_rates.list_all),
        ("GET", "/{id}", tax_rates.RETRIEVE, tax_rates.retrieve),
        ("POST", "/{id}", tax_rates.UPDATE, tax_rates.update),
    ),
    *_under(
        "charges",
        ("GET", "", charges.LIST, charges.list_all),
        ("GET", "/{id}", charges.RETRIEVE, charges.retrieve),
        ("POST", "/{id}", charges.UPDATE, charges.update),
    ),
    *_under(
        "refunds",
        ("POST", "", refunds.CREATE, refunds.create),
        ("GET", "", refunds.LIST, refunds.list_all),
        ("GET", "/{id}", refunds.RETRIEVE, refunds.retrieve),
        ("POST", "/{id}", refunds.UPDATE, refunds.update),
    ),
    *_under(
        "disputes",
        ("GET", "", disputes.LIST, disputes.list_all),
        ("GET", "/{id}", disputes.RETRIEVE, disputes.retrieve),
        ("POST", "/{id}", disputes.UPDATE, disputes.update),
        ("POST", "/{id}/close", disputes.CLOSE, disputes.close),
    ),
    *_under(
        "balance_transactions",
        ("GET", "", account_transactions.LIST, account_transactions.list_all),
        ("GET", "/{id}", account_transactions.RETRIEVE, account_transactions.retrieve),
    ),
    *_under(
        "credit_notes",
        ("POST", "", credit_notes.CREATE, credit_notes.create),
        ("GET", "", credit_notes.LIST, credit_notes.list_all),
        # Before `/{id}`: the first path that fits is taken.
        ("GET", "/preview", credit_notes.PREVIEW, credit_notes.preview),
        ("GET", "/preview/lines", credit_notes.PREVIEW_LINES, credit_notes.preview_lines),
        ("GET", "/{id}", credit_notes.RETRIEVE, credit_notes.retrieve),
        ("POST", "/{id}", credit_notes.UPDATE, credit_notes.update),
        ("POST", "/{id}/void", credit_notes.VOID, credit_notes.void),
        ("GET", "/{id}/lines", credit_notes.LIST_LINES, credit_notes.list_lines),
    ),
    *_under(
        "events",
        ("GET", "", events.LIST, events.list_all),
        ("GET", "/{id}", events.RETRIEVE, events.retrieve),
    ),
    Endpoint("GET", "/v2/core/events/{id}", thin_events.RETRIEVE, thin_events.retrieve),
    *_under(
        "test_helpers/test_clocks",
        ("POST", "", test_clocks.CREATE, test_clocks.create),
        ("GET", "", test_clocks.LIST, test_clocks.list_all),
        ("GET", "/{id}", test_clocks.RETRIEVE, test_clocks.retrieve),
        ("DELETE", "/{id}", test_clocks.DELETE, test_clocks.delete),
        ("POST", "/{id}/advance", test_clocks.ADVANCE, test_clocks.advance),
    ),
    *_under(
        "webhook_endpoints",
        ("POST", "", webhook_endpoints.CREATE, webhook_endpoints.create),
        ("GET", "", webhook_endpoints.LIST, webhook_endpoints.list_all),
        ("GET", "/{id}", webhook_endpoints.RETRIEVE, webhook_endpoints.retrieve),
        ("POST", "/{id}", webhook_endpoints.UPDATE, webhook_endpoints.update),
        ("DELETE", "/{id}", webhook_endpoints.DELETE, webhook_endpoints.delete),
    ),
)
