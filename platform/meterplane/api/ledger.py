"""An organisation's ledger: what its accounts hold, what was entered, and one account's statement.

Amounts are decimal strings in the currency beside them; a debit is positive, a credit negative.
"""

from typing import Any

from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.ledger import queries
from billing.ledger.accounts import Group, Side, find_account
from meterplane.api.organisations import named_organisation
from meterplane.kernel.errors import CallerError
from meterplane.kernel.money import MINOR_DIGITS, minor_to_text
from tenants.scoping import tenant_scope

PAGE_DEFAULT = 50
PAGE_MAX = queries.PAGE_MAX - 1  # and one more says whether there is another page


class LedgerQuery(serializers.Serializer[Any]):
    """Which entries. `cursor` is `next_cursor` of the page before."""

    limit = serializers.IntegerField(
        required=False, default=PAGE_DEFAULT, min_value=1, max_value=PAGE_MAX
    )
    cursor = serializers.UUIDField(required=False, default=None, allow_null=True)


class StatementQuery(serializers.Serializer[Any]):
    """Whose movements, from `since` until `until`, half-open."""

    account = serializers.CharField(max_length=80)
    currency = serializers.ChoiceField(choices=sorted(MINOR_DIGITS))
    since = serializers.DateTimeField()
    until = serializers.DateTimeField()


class AccountBalanceOut(serializers.Serializer[Any]):
    """What an account holds: above zero on the debit side, below on the credit side."""

    account = serializers.CharField()
    currency = serializers.CharField()
    group = serializers.ChoiceField(choices=[str(each) for each in Group])
    normal_side = serializers.ChoiceField(choices=[str(each) for each in Side], source="side")
    balance = serializers.SerializerMethodField()

    def get_balance(self, row: queries.BalanceView) -> str:
        """Decimal string."""
        return minor_to_text(row.balance_minor, row.currency)


class LedgerLegOut(serializers.Serializer[Any]):
    """One side of an entry."""

    account = serializers.CharField()
    amount = serializers.CharField()


class LedgerEntryOut(serializers.Serializer[Any]):
    """What happened to a source at `effective_at`. The amounts of its legs add up to zero."""

    id = serializers.UUIDField()
    kind = serializers.CharField()
    source_id = serializers.CharField()
    currency = serializers.CharField()
    memo = serializers.CharField(allow_blank=True)
    effective_at = serializers.DateTimeField()
    created_at = serializers.DateTimeField()
    legs = serializers.SerializerMethodField()

    @extend_schema_field(LedgerLegOut(many=True))
    def get_legs(self, entry: queries.EntryView) -> list[dict[str, str]]:
        """Debits and credits, in order."""
        return [
            {"account": leg.account, "amount": minor_to_text(leg.amount_minor, entry.currency)}
            for leg in entry.legs
        ]


class LedgerOut(serializers.Serializer[Any]):
    """All balances, and entries, the newest first. `next_cursor` null: there are no older ones."""

    balances = AccountBalanceOut(many=True)
    entries = LedgerEntryOut(many=True)
    next_cursor = serializers.UUIDField(allow_null=True)


class StatementLineOut(serializers.Serializer[Any]):
    """One movement, and what the account held after it."""

    entry_id = serializers.UUIDField()
    kind = serializers.CharField()
    source_id = serializers.CharField()
    memo = serializers.CharField(allow_blank=True)
    effective_at = serializers.DateTimeField()
    amount = serializers.CharField()
    balance = serializers.CharField()


class StatementOut(serializers.Serializer[Any]):
    """An account's movements in order of what happened, from its opening to its closing balance."""

    account = serializers.CharField()
    currency = serializers.CharField()
    since = serializers.DateTimeField()
    until = serializers.DateTimeField()
    opening = serializers.CharField()
    lines = StatementLineOut(many=True)
    closing = serializers.CharField()


class Ledger(APIView):
    """What an organisation's accounts hold, and the entries that made it."""

    @extend_schema(parameters=[LedgerQuery], responses=LedgerOut)
    def get(self, request: Request, slug: str) -> Response:
        """All balances, and a page of entries, the newest first."""
        query = LedgerQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        asked = query.validated_data
        with tenant_scope(named_organisation(slug).id):
            balances = queries.balances()
            found = queries.list_entries(asked["limit"] + 1, asked["cursor"])
        page = found[: asked["limit"]]
        told = {
            "balances": balances,
            "entries": page,
            "next_cursor": page[-1].id if len(found) > len(page) else None,
        }
        return Response(LedgerOut(told).data)


class AccountStatement(APIView):
    """One account's movements."""

    @extend_schema(parameters=[StatementQuery], responses=StatementOut)
    def get(self, request: Request, slug: str) -> Response:
        """The movements of a span, with the balance after each."""
        query = StatementQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        asked = query.validated_data
        if find_account(asked["account"]) is None:
            raise CallerError(
                "account_unknown",
                "There is no such account; the balances of `ledger` name those in use.",
                field="account",
            )
        with tenant_scope(named_organisation(slug).id):
            found = queries.statement(**asked)
        return Response(StatementOut(_shown(found)).data)


def _shown(found: queries.Statement) -> dict[str, Any]:
    def text(amount_minor: int) -> str:
        return minor_to_text(amount_minor, found.currency)

    return {
        "account": found.account,
        "currency": found.currency,
        "since": found.since,
        "until": found.until,
        "opening": text(found.opening_minor),
        "lines": [
            {
                "entry_id": line.entry_id,
                "kind": line.kind,
                "source_id": line.source_id,
                "memo": line.memo,
                "effective_at": line.effective_at,
                "amount": text(line.amount_minor),
                "balance": text(line.balance_minor),
            }
            for line in found.lines
        ],
        "closing": text(found.closing_minor),
    }
