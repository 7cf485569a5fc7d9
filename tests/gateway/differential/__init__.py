"""Requests for the real Triton and the gateway in front of it: curated and random ones."""
