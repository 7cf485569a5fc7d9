"""Disputes at Stripe, with the balance transactions that each has made."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from billing.payments.dispute_port import DisputeTransaction, ProviderDispute
from billing.payments.stripe.client import LIST_PAGE, Client, translated


class Disputes(Client):
    """The port's reads of disputes."""

    def dispute(self, provider_dispute_id: str) -> ProviderDispute:
        with translated():
            found = self._client.v1.disputes.retrieve(provider_dispute_id)
            return _dispute(found.to_dict(for_json=True))

    def disputes_made(self, start: datetime, end: datetime) -> list[ProviderDispute]:
        created: Any = {"gte": math.floor(start.timestamp()), "lt": math.ceil(end.timestamp())}
        with translated():
            page = self._client.v1.disputes.list({"limit": LIST_PAGE, "created": created})
            return [_dispute(each.to_dict(for_json=True)) for each in page.auto_paging_iter()]


def _dispute(found: Mapping[str, Any]) -> ProviderDispute:
    evidence = found["evidence_details"]
    return ProviderDispute(
        provider_dispute_id=str(found["id"]),
        charge_id=_id(found["charge"]),
        payment_intent_id=_id(found.get("payment_intent")),
        status=str(found["status"]),
        reason=str(found["reason"]),
        currency=str(found["currency"]).upper(),
        amount_minor=int(found["amount"]),
        # 0 where the bank takes no answer.
        evidence_due_at=_at(evidence["due_by"]) if evidence.get("due_by") else None,
        has_evidence=bool(evidence["has_evidence"]),
        opened_at=_at(found["created"]),
        transactions=tuple(_transaction(each) for each in found["balance_transactions"]),
    )


def _transaction(found: Mapping[str, Any]) -> DisputeTransaction:
    return DisputeTransaction(
        transaction_id=str(found["id"]),
        currency=str(found["currency"]).upper(),
        amount_minor=int(found["amount"]),
        fee_minor=int(found["fee"]),
        at=_at(found["created"]),
    )


def _at(seconds: Any) -> datetime:
    return datetime.fromtimestamp(int(seconds), tz=UTC)


def _id(named: Any) -> str:
    return str(named["id"] if isinstance(named, dict) else named or "")
