"""Prepaid and promotional credit: grants, and what is drawn from them."""
