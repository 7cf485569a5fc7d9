"""Meterplane: a billing and control plane for inference.

Holds nothing on purpose: importing Celery or Django here would pull them into the gateway.
"""
