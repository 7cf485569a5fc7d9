"""What a member is told of limits: what holds, who says so, what was spent and what is left."""

import re
from datetime import timedelta
from html import unescape

import pytest

from meterplane.kernel import clock
from meterplane.metering.ingest import ingest_segment
from tenants.limits import (
    add_balance,
    raise_temporarily,
    remove_limit,
    set_limit,
    set_plan,
    set_restriction,
)
from tests.metering.segments import message, settle

pytestmark = pytest.mark.django_db
DOLLAR = 10**9


def page_of(client) -> str:
    answer = client.get("/limits/")
    assert answer.status_code == 200
    text = re.sub(r"<[^>]*>", " ", answer.content.decode())
    return re.sub(r"\s+", " ", unescape(text))


def budget(tenant, level, scope_id, amount=4 * DOLLAR, mode="notify", **more):
    return set_limit(
        tenant_id=tenant.id, level=level, scope_id=scope_id, kind="spend", window="month",
        amount=amount, mode=mode, **more,
    )  # fmt: skip


def test_a_new_organisation_sees_what_its_plan_says(owner):
    page = page_of(owner)
    assert "Plan Standard" in page
    assert "Requests per minute 6,000 200 at once – – Plan" in page  # noqa: RUF001
    assert "No restrictions" in page


def test_without_any_limit_the_page_says_so(owner, organisation):
    set_plan(tenant_id=organisation.id, slug=None)
    page = page_of(owner)
    assert "Nothing limits the organisation as a whole" in page
    assert "appear here" in page


def test_spend_is_shown_with_what_is_left_at_every_level(owner, organisation, third_of_november):
    nano = 3 * DOLLAR + 500_000_000
    ingest_segment(message([settle(organisation, cost_nano=nano, reserved_nano=nano)]))
    budget(organisation, "organisation", organisation.id, 7 * DOLLAR)
    budget(organisation, "project", organisation.project_id)
    budget(organisation, "key_model", organisation.key_id, model="tiny-lm")
    page = page_of(owner)
    said_by = "Your provider since 3 Nov 2026"
    assert f"Spend per month only tells $7.00 $3.50 $3.50 anew 1 Dec 2026 {said_by}" in page
    assert "Default Project" in page
    assert "tiny-lm only tells Key first key $4.00 $3.50 $0.50" in page
    raw = owner.get("/limits/").content.decode()
    assert 'value="500"' in raw
    assert 'value="875" data-tone="warn"' in raw


def test_more_spent_than_the_limit_is_a_full_bar_and_nothing_left(owner, organisation):
    nano = 9 * DOLLAR
    ingest_segment(message([settle(organisation, cost_nano=nano, reserved_nano=nano)]))
    budget(organisation, "organisation", organisation.id)
    assert "$4.00 $9.00 $0.00" in page_of(owner)
    assert 'value="1000"' in owner.get("/limits/").content.decode()
    budget(organisation, "organisation", organisation.id, 0)
    assert "$0.00 $9.00 $0.00" in page_of(owner)


def test_a_balance_and_a_raise_are_named(owner, organisation):
    add_balance(tenant_id=organisation.id, nano=20 * DOLLAR, reference="p1")
    limit = budget(organisation, "organisation", organisation.id)
    raise_temporarily(
        tenant_id=organisation.id, limit_id=limit.id, amount=6 * DOLLAR,
        until=clock.now() + timedelta(hours=1),
    )  # fmt: skip
    page = page_of(owner)
    assert "Prepaid balance $20.00 $0.00 $20.00 Paid in" in page
    assert re.search(r"Spend per month only tells \$6.00 .* raised until", page)
    remove_limit(tenant_id=organisation.id, limit_id=limit.id)
    assert "Spend per month" not in page_of(owner)


def test_restrictions_are_shown_by_scope(owner, organisation):
    set_restriction(
        tenant_id=organisation.id, level="key", scope_id=organisation.key_id,
        models=["tiny-lm"], ip_ranges=["10.0.0.0/8"], request_tokens_max=5000,
    )  # fmt: skip
    set_restriction(
        tenant_id=organisation.id, level="organisation", scope_id=organisation.id, surfaces=[]
    )
    page = page_of(owner)
    assert "first key API key tiny-lm any 10.0.0.0/8 5,000" in page
    assert "Acme Organisation any none any the model’s" in page  # noqa: RUF001


@pytest.mark.parametrize("role", ["viewer", "billing", "developer"])
def test_every_member_may_look(as_role, role):
    assert "Requests per minute" in page_of(as_role(role))


def test_another_tenants_limits_are_not_shown(owner, onboard):
    other = onboard("neighbour", monthly_budget_nano=77 * DOLLAR)
    set_restriction(tenant_id=other.id, level="key", scope_id=other.key_id, models=["secret-model"])
    page = page_of(owner)
    assert "$77" not in page
    assert "secret-model" not in page


def test_strangers_sign_in_first(client):
    assert client.get("/limits/")["Location"].startswith("/accounts/login/")


def test_the_page_is_in_the_navigation_and_the_palette(owner):
    assert owner.get("/usage/").content.decode().count('href="/limits/"') == 2
