"""The account that a key belongs to: always this one, ready to be paid and paid out."""

from stripe_sandbox.call import Call
from stripe_sandbox.params import Takes
from stripe_sandbox.store import Document

ACCOUNT_ID = "acct_sandbox"

RETRIEVE = Takes()


def retrieve(call: Call) -> Document:
    return {
        "id": ACCOUNT_ID,
        "object": "account",
        "business_type": "company",
        "charges_enabled": True,
        "country": "US",
        "created": 0,
        "default_currency": "usd",
        "details_submitted": True,
        "email": "sandbox@stripe.example",
        "metadata": {},
        "payouts_enabled": True,
        "type": "standard",
    }
