"""Verdicts over the control API: by time and verdict, for operators."""

from datetime import timedelta

import pytest
from rest_framework.test import APIClient

from tenants.keys import issue_operator_key
from tests.console.test_metering_health import HOUR, verdict

PATH = "/api/v1/reconciliation"


@pytest.fixture
def operator(db) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {issue_operator_key('tests')}")
    return client


def test_verdicts_are_listed_newest_first_and_filtered(operator):
    verdict("pass", triton=2, triton_low=2, triton_high=3)
    verdict("fail", model="identity", reason="x", hour=HOUR - timedelta(hours=3))
    verdict("pass", hour=HOUR - timedelta(days=3))
    [first, second] = operator.get(PATH).json()
    assert (first["verdict"], first["triton_high"], first["missing"]) == ("pass", 3, [])
    assert (second["model"], second["verdict"], second["reason"]) == ("identity", "fail", "x")
    assert [row["model"] for row in operator.get(PATH, {"verdict": "fail"}).json()] == ["identity"]
    old = {"from": (HOUR - timedelta(days=4)).isoformat(), "to": HOUR.isoformat()}
    assert len(operator.get(PATH, old).json()) == 2


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"from": "yesterday"}, "from"),
        ({"to": "2026-13-01"}, "to"),
        ({"from": "2030-01-01T00:00:00Z"}, "from"),
        ({"verdict": "perhaps"}, "verdict"),
    ],
)
def test_what_is_asked_wrongly_is_told(operator, query, field):
    refused = operator.get(PATH, query)
    assert refused.status_code == 400
    assert field in str(refused.json())


def test_it_is_for_operators(organisation):
    client = APIClient()
    assert client.get(PATH).status_code == 401
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {organisation.secret}")
    assert client.get(PATH).status_code == 401
