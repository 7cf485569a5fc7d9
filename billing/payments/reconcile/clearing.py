"""Clearing accounts return to zero: what is owed is what open invoices are about, and nothing else.

`receivable` clears between an invoice and whatever settles it. A tenant none of whose invoices of a
currency is open is owed nothing in it; what is left there was posted on one side only. That what
left `receivable` as a payment is what the provider got is compared beside it, invoice by invoice
(`kinds.payments`); `payments` itself is no clearing account yet: it is what the provider has of
ours, as long as its payouts to a bank are not recorded.

One statement, and so one snapshot: an invoice and its entries move in one transaction.
"""

from django.db import connection

from billing.ledger.accounts import RECEIVABLE
from billing.payments.models import PaymentFinding
from billing.payments.reconcile.compare import Found
from billing.payments.reconcile.looked import Looked
from meterplane.kernel.money import minor_to_text
from tenants.scoping import system_scope

_BALANCES = """
SELECT o.id, o.slug, b.currency, b.balance_minor
  FROM ledger_balance b
  JOIN organisation o ON o.id = b.tenant_id
 WHERE b.account = %(account)s
   AND NOT EXISTS (SELECT FROM invoice i WHERE i.tenant_id = b.tenant_id
                      AND i.currency = b.currency AND i.status = 'open')
 ORDER BY o.slug, b.currency
"""


def clearing() -> Looked:
    """Of every tenant that has no open invoice, what is left in its clearing account."""
    with system_scope("clearing accounts are looked at"), connection.cursor() as cursor:
        cursor.execute(_BALANCES, {"account": RECEIVABLE})
        rows = cursor.fetchall()
    found = [
        Found(
            "left_over",
            f"{tenant_id}:{currency}",
            "",
            f"{slug} has no open invoice in {currency}, and its {RECEIVABLE} holds"
            f" {minor_to_text(balance_minor, currency)}",
        )
        for tenant_id, slug, currency, balance_minor in rows
        if balance_minor
    ]
    return Looked(PaymentFinding.Kind.CLEARING, len(rows), found, is_of_day=False)
