"""Collect invoices through a payment provider, and mirror what it says happened.

We decide every cent; the provider collects. See `run.py` for the crash-safe procedure.
"""
