"""Ours against the provider's, both ways: by id, status and cents."""
