"""The `meterplane` command: a tenant's usage and receipts, and usage told from outside.

A client like any other: it knows addresses and contracts, and nothing of the servers behind them.
"""
