"""Which declaration stands for which parameters of the SDK: `params/_<name>_params.py`."""

from stripe_sandbox import balance_transactions, charges, credit_notes, disputes, refunds
from stripe_sandbox.params import Takes

MONEY_BACK: dict[str, Takes] = {
    "customer_balance_transaction_create": balance_transactions.CREATE,
    "customer_balance_transaction_list": balance_transactions.LIST,
    "customer_balance_transaction_retrieve": balance_transactions.RETRIEVE,
    "customer_balance_transaction_update": balance_transactions.UPDATE,
    "charge_list": charges.LIST,
    "charge_retrieve": charges.RETRIEVE,
    "charge_update": charges.UPDATE,
    "refund_create": refunds.CREATE,
    "refund_list": refunds.LIST,
    "refund_retrieve": refunds.RETRIEVE,
    "refund_update": refunds.UPDATE,
    "dispute_list": disputes.LIST,
    "dispute_retrieve": disputes.RETRIEVE,
    "dispute_update": disputes.UPDATE,
    "dispute_close": disputes.CLOSE,
    "credit_note_create": credit_notes.CREATE,
    "credit_note_preview": credit_notes.PREVIEW,
    "credit_note_preview_lines_list": credit_notes.PREVIEW_LINES,
    "credit_note_list": credit_notes.LIST,
    "credit_note_retrieve": credit_notes.RETRIEVE,
    "credit_note_update": credit_notes.UPDATE,
    "credit_note_void_credit_note": credit_notes.VOID,
    "credit_note_line_item_list": credit_notes.LIST_LINES,
}

MORE = {**MONEY_BACK}
