"""Double entry: what is owed, earned, paid and held, insert-only. One writer, `post`.

`accounts` names them, `movements` says which of them each act of ours debits and credits, `audit`
proves it. Does not know invoices, credits or payments: they post, and tell `sources` what must be
here.
"""
