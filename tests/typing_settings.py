"""Settings as mypy's Django plugin loads them: real ones, on placeholders for the environment."""

import os

os.environ.setdefault("PAYMENT_PROVIDER", "none")
os.environ.setdefault("DJANGO_SECRET_KEY", "x" * 64)
os.environ.setdefault("API_KEY_PEPPER", "00" * 32)
os.environ.setdefault("RECEIPT_SIGNING_KEYS", "00" * 32)
os.environ.setdefault("DATABASE_URL", "postgresql://typing@/typing")
os.environ.setdefault("REDIS_URL", "redis://127.0.0.1:1")
os.environ.setdefault("PAYMENT_PROVIDER", "none")
os.environ.setdefault("ADMISSION_REDIS_URL", "redis://127.0.0.1:1")

from meterplane.settings import *  # noqa: F403
