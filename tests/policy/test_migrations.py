"""Budgets after a step back to the code of before."""

import pytest

from tests.metering.test_migrations import migrate
from tests.policy.test_budget_grants import take

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.long]


def test_a_budget_is_granted_and_exhausted_before_credit_held_anybody(organisation):
    migrate("policy", "0004_alerts")
    try:
        assert take(organisation.id, 100, 100).block == 100
        assert take(organisation.id, 100, 1).block == 0
    finally:
        migrate()
    assert take(organisation.id, 100, 1).block == 0
