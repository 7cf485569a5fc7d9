"""Owners and admins set limits and restrictions; what is refused stands at its field."""

import re
from datetime import timedelta
from html import unescape

import pytest
from django.test import Client

from meterplane.catalog.sync import sync_catalog
from meterplane.kernel import clock
from meterplane.kernel.errors import WorldError
from meterplane.kernel.ids import uuid7
from meterplane.stack.demo import CATALOG
from tenants.limits import set_limit, set_restriction
from tenants.models import Limit, Restriction, SetBy
from tenants.rotate import rotate_key
from tenants.scoping import tenant_scope
from tests.portal.test_limits import page_of
from tests.tenants.test_keys import compiled

pytestmark = pytest.mark.django_db
DOLLAR = 10**9
ROLES = ["owner", "admin", "developer", "billing", "viewer"]
MANAGERS = {"owner", "admin"}


def words(answer) -> str:
    text = re.sub(r"<[^>]*>", " ", answer.content.decode())
    return re.sub(r"\s+", " ", unescape(text))


def terms(organisation, **changes):
    return {
        "scope": f"organisation:{organisation.id}", "what": "spend:month", "amount": "10.5",
        "model": "", "mode": "enforce",
    } | changes  # fmt: skip


def send(client, path, form):
    """As the dialog does."""
    return client.post(path, form, headers={"hx-request": "true"})


def rows(organisation, of=Limit):
    with tenant_scope(organisation.id):
        return list(of.objects.all())


def own(organisation, amount=50, **more):
    values = {"level": "organisation", "scope_id": organisation.id, "kind": "requests",
              "window": "minute", "by": SetBy.ORGANISATION} | more  # fmt: skip
    return set_limit(tenant_id=organisation.id, amount=amount, **values)


def error_at(page: str, field: str) -> str:
    """What stands at a field: it is told to whoever hears the page, too."""
    block = re.search(
        rf'(?s)<div class="field" data-invalid="true">(?:(?!</div>).)*id="id_{field}".*?'
        r'role="alert">(.*?)</div>',
        page,
    )
    assert block, page
    return unescape(block.group(1))


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({}, ("organisation", "spend", "month", "", 10_500_000_000, "enforce")),
        ({"mode": "notify"}, ("organisation", "spend", "month", "", 10_500_000_000, "notify")),
        ({"scope": "project", "what": "total_tokens:day", "amount": "7"},
         ("project", "total_tokens", "day", "", 7, "enforce")),
        ({"scope": "key", "what": "concurrency:at_once", "amount": "2"},
         ("key", "concurrency", "at_once", "", 2, "enforce")),
        ({"scope": "key", "model": "tiny-lm", "amount": "0"},
         ("key_model", "spend", "month", "tiny-lm", 0, "enforce")),
    ],
)  # fmt: skip
def test_a_limit_is_set_and_in_force_when_the_page_says_so(owner, organisation, changes, limit):
    sync_catalog(CATALOG)
    ids = {"project": organisation.project_id, "key": organisation.key_id}
    if "scope" in changes:
        changes = changes | {"scope": f"{changes['scope']}:{ids[changes['scope']]}"}
    answer = owner.post("/limits/new/", terms(organisation, **changes), follow=True)
    found = [
        (e.level, e.kind, e.window, e.model, e.amount, e.mode)
        for e in compiled(organisation.id, organisation.key_id).limits
    ]
    assert limit in found
    assert "In force since" in words(answer)
    assert "Your organisation since" in words(answer)
    assert "In force since" not in page_of(owner), "it is said once"


def test_a_dialog_sends_on_to_the_page_that_shows_it(owner, organisation):
    form = terms(organisation, scope=f"key:{organisation.key_id}")
    answer = send(owner, "/limits/new/", form)
    assert answer["HX-Redirect"] == f"/keys/{organisation.key_id}/limits/"
    assert "$10.50" in words(owner.get(answer["HX-Redirect"]))
    assert send(owner, "/limits/new/", terms(organisation))["HX-Redirect"] == "/limits/"


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"amount": ""}, "amount", "This field is required"),
        ({"amount": "ten"}, "amount", "Enter a number"),
        ({"amount": "-1"}, "amount", "greater than or equal to 0"),
        ({"amount": "NaN"}, "amount", "Enter a number"),
        ({"amount": "1e400"}, "amount", "Ensure that there are no more"),
        ({"amount": "0.1234567891"}, "amount", "no more than 9 decimal places"),
        ({"amount": "9999999999"}, "amount", "Choose an amount of 0 to"),
        ({"amount": "1.5", "what": "requests:day"}, "amount", "Enter a whole number"),
        ({"amount": "6001", "what": "requests:minute"}, "amount", "allows less here already"),
        ({"amount": "9", "what": "requests:minute", "mode": "notify"}, "mode", "can only refuse"),
        ({"what": "spend:prepaid"}, "what", "Select a valid choice"),
        ({"what": "spend"}, "what", "Select a valid choice"),
        ({"model": "tiny-lm"}, "model", "Choose an API key above"),
        ({"model": "nothing"}, "model", "Select a valid choice"),
        ({"scope": f"key:{uuid7()}"}, "scope", "Select a valid choice"),
        ({"scope": ""}, "scope", "This field is required"),
    ],
)
def test_what_is_wrong_stands_at_its_field_with_what_was_typed(
    owner, organisation, changes, field, said
):
    sync_catalog(CATALOG)
    before = compiled(organisation.id, organisation.key_id)
    answer = send(owner, "/limits/new/", terms(organisation, **changes))
    assert answer.status_code == 200
    page = answer.content.decode()
    assert said in error_at(page, field)
    if changes.get("amount"):
        assert f'value="{changes["amount"]}"' in page
    assert not rows(organisation)
    assert compiled(organisation.id, organisation.key_id) == before


def test_a_limit_is_changed_raised_and_removed(owner, organisation):
    row = own(organisation)
    page = owner.get(f"/limits/{row.id}/change/").content.decode()
    assert 'name="amount" value="50"' in page
    answer = send(owner, f"/limits/{row.id}/change/", {"amount": "40", "mode": "enforce"})
    assert answer["HX-Redirect"] == "/limits/"
    until = (clock.now() + timedelta(hours=2)).replace(second=0, microsecond=0)
    raised = {"amount": "60", "until": f"{until:%Y-%m-%dT%H:%M}"}
    assert send(owner, f"/limits/{row.id}/raise/", raised)["HX-Redirect"] == "/limits/"
    (rate,) = compiled(organisation.id, organisation.key_id).limits
    assert [rate.amount_at(clock.to_ms(at)) for at in (clock.now(), until)] == [60, 40]
    assert "raised until" in page_of(owner)
    assert "Remove Requests per minute ?" in words(owner.get(f"/limits/{row.id}/remove/")).replace(
        "minute?", "minute ?"
    )
    assert len(rows(organisation)) == 1, "asking removes nothing"
    answer = owner.post(f"/limits/{row.id}/remove/", follow=True)
    assert "Requests per minute is removed. In force since" in words(answer)
    (rate,) = compiled(organisation.id, organisation.key_id).limits
    assert rate.amount == 6000


@pytest.mark.parametrize(
    ("form", "field", "said"),
    [
        ({"amount": "49", "until": "2999-01-01T00:00"}, "amount", "to more than the limit"),
        ({"amount": "6001", "until": "2999-01-01T00:00"}, "amount", "allows less here already"),
        ({"amount": "51", "until": "2020-01-01T00:00"}, "until", "an end in the future"),
        ({"amount": "51", "until": "soon"}, "until", "Enter a valid date/time"),
        ({"amount": "51"}, "until", "This field is required"),
    ],
)
def test_a_raise_that_cannot_be_stands_at_its_field(owner, organisation, form, field, said):
    row = own(organisation)
    page = send(owner, f"/limits/{row.id}/raise/", form).content.decode()
    assert said in error_at(page, field)
    assert rows(organisation)[0].raised_to is None


def test_what_the_provider_set_is_said_to_be_theirs(owner, organisation):
    row = own(organisation, by=SetBy.OPERATOR)
    form = {"amount": "60", "mode": "enforce", "until": "2999-01-01T00:00"}
    for act in ("change", "raise", "remove"):
        for answer in (owner.get(f"/limits/{row.id}/{act}/"),
                       owner.post(f"/limits/{row.id}/{act}/", form)):  # fmt: skip
            assert answer.status_code == 403
            assert "Your provider set this limit; ask them" in words(answer)
        assert f"/limits/{row.id}/{act}/" not in owner.get("/limits/").content.decode()
    assert [(e.amount, e.set_by) for e in rows(organisation)] == [(50, "operator")]


@pytest.mark.parametrize("role", ROLES)
def test_only_owners_and_admins_set_limits(organisation, as_role, role):
    client, may = as_role(role), role in MANAGERS
    row = own(organisation, scope_id=organisation.key_id, level="key")
    set_restriction(
        tenant_id=organisation.id, level="key", scope_id=organisation.key_id,
        surfaces=["openai.chat"], by=SetBy.ORGANISATION,
    )  # fmt: skip
    at_key = f"/limits/restrict/key/{organisation.key_id}/"
    asked = [f"/limits/{row.id}/{act}/" for act in ("change", "raise", "remove")]
    asked += ["/limits/new/", "/limits/restrict/", at_key, f"{at_key}remove/"]
    for path in asked:
        assert client.get(path).status_code == (200 if may else 403), path
    if not may:
        form = terms(organisation) | {"until": "2999-01-01T00:00", "request_tokens_max": "5"}
        for path in asked:
            assert client.post(path, form).status_code == 403, path
        assert [e.amount for e in rows(organisation)] == [50]
        assert len(rows(organisation, Restriction)) == 1
    for path in ("/limits/", f"/keys/{organisation.key_id}/limits/"):
        page = client.get(path).content.decode()
        assert ("/limits/new/" in page) == ("/change/" in page) == may
        assert "Requests per minute" in page
    assert f"/keys/{organisation.key_id}/limits/" in client.get("/keys/").content.decode()


def test_a_post_without_its_token_changes_nothing(organisation):
    client = Client(enforce_csrf_checks=True)
    client.force_login(organisation.owner, backend="django.contrib.auth.backends.ModelBackend")
    assert client.post("/limits/new/", terms(organisation)).status_code == 403
    assert not rows(organisation)


def test_what_is_another_tenants_is_missing(owner, organisation, onboard):
    other = onboard("beta")
    row = own(other)
    key = {"level": "key", "scope_id": other.key_id, "by": SetBy.ORGANISATION}
    set_restriction(tenant_id=other.id, surfaces=["openai.chat"], **key)
    for path in (f"/limits/{row.id}/change/", f"/limits/{row.id}/raise/",
                 f"/limits/{row.id}/remove/", f"/limits/restrict/key/{other.key_id}/",
                 f"/limits/restrict/key/{other.key_id}/remove/"):  # fmt: skip
        for call in (owner.get, owner.post):
            assert call(path).status_code == 404, path
    assert owner.get(f"/keys/{other.key_id}/limits/").status_code == 404
    sent = send(owner, "/limits/new/", terms(organisation, scope=f"key:{other.key_id}"))
    assert "Select a valid choice" in error_at(sent.content.decode(), "scope")
    assert len(rows(other)) == len(rows(other, Restriction)) == 1


def test_gateways_that_could_not_be_told_are_admitted(owner, organisation, monkeypatch):
    def untold(**_):
        raise WorldError("policy_not_published", "Not told.")

    monkeypatch.setattr("tenants.limits.set_limit", untold)
    answer = owner.post("/limits/new/", terms(organisation), follow=True)
    assert "Not every gateway knows yet" in words(answer)
    assert "In force" not in words(answer)


def restriction(organisation, **changes):
    return {"scope": f"key:{organisation.key_id}", "models": ["tiny-lm"],
            "surfaces": ["openai.chat"], "ip_ranges": "10.0.0.0/8\r\n\r\n 192.0.2.7 ",
            "request_tokens_max": "500"} | changes  # fmt: skip


def test_a_key_is_restricted_changed_and_freed(owner, organisation):
    sync_catalog(CATALOG)
    answer = owner.post("/limits/restrict/", restriction(organisation), follow=True)
    assert "first key" in words(answer)
    assert "is restricted. In force since" in words(answer)
    policy = compiled(organisation.id, organisation.key_id)
    assert policy.surfaces == ["openai.chat"]
    assert policy.ip_ranges == ["10.0.0.0/8", "192.0.2.7/32"]
    assert policy.request_tokens_max == 500
    assert (
        "first key API key tiny-lm Chat completions 10.0.0.0/8 192.0.2.7/32 500 Your organisation"
        in page_of(owner)
    )
    at = f"/limits/restrict/key/{organisation.key_id}/"
    page = owner.get(at).content.decode()
    assert "10.0.0.0/8\n192.0.2.7/32" in page
    assert re.search(r'value="tiny-lm"[^>]* checked', page)
    taken = send(owner, "/limits/restrict/", restriction(organisation)).content.decode()
    assert "Select a valid choice" in error_at(taken, "scope"), "it is there to be changed"
    wider = restriction(organisation, models=[], surfaces=[], ip_ranges="")
    assert send(owner, at, wider).status_code == 200
    policy = compiled(organisation.id, organisation.key_id)
    assert (policy.surfaces, policy.ip_ranges, policy.request_tokens_max) == (None, None, 500)
    assert len(rows(organisation, Restriction)) == 1, "asking removes nothing"
    answer = owner.post(f"{at}remove/", follow=True)
    assert "is removed. In force since" in words(answer)
    assert compiled(organisation.id, organisation.key_id).request_tokens_max is None


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"ip_ranges": "10.0.0.0/8\nhere"}, "ip_ranges", "'here' is no address"),
        ({"ip_ranges": "\n".join(f"10.0.0.{n}" for n in range(101))}, "ip_ranges", "at most 100"),
        ({"request_tokens_max": "0"}, "request_tokens_max", "Allow 1 to"),
        ({"request_tokens_max": "many"}, "request_tokens_max", "Enter a whole number"),
        ({"scope": f"key:{uuid7()}"}, "scope", "Select a valid choice"),
    ],
)
def test_a_restriction_that_cannot_be_stands_at_its_field(
    owner, organisation, changes, field, said
):
    sync_catalog(CATALOG)
    before = compiled(organisation.id, organisation.key_id)
    page = send(owner, "/limits/restrict/", restriction(organisation, **changes)).content.decode()
    assert said in error_at(page, field)
    assert re.search(r'value="tiny-lm"[^>]* checked', page)
    if field == "ip_ranges":
        assert changes["ip_ranges"].splitlines()[-1] in unescape(page)
    assert not rows(organisation, Restriction)
    assert compiled(organisation.id, organisation.key_id) == before


@pytest.mark.parametrize(("field", "value"), [("models", "nothing"), ("surfaces", "fax")])
def test_a_box_that_is_not_there_cannot_be_ticked(owner, organisation, field, value):
    sync_catalog(CATALOG)
    form = restriction(organisation, **{field: [value]})
    assert "Select a valid choice" in words(send(owner, "/limits/restrict/", form))
    assert not rows(organisation, Restriction)


def test_a_restriction_that_says_nothing_is_asked_to_say_something(owner, organisation):
    form = {"scope": f"key:{organisation.key_id}"}
    assert "Say what is restricted" in words(send(owner, "/limits/restrict/", form))


def test_what_the_operator_restricts_is_not_replaced(owner, organisation):
    where = {"level": "key", "scope_id": organisation.key_id}
    set_restriction(tenant_id=organisation.id, **where, request_tokens_max=100)
    assert "100 Your provider since" in page_of(owner)
    assert owner.get(f"/limits/restrict/key/{organisation.key_id}/").status_code == 404
    send(owner, "/limits/restrict/", restriction(organisation, models=[]))
    assert compiled(organisation.id, organisation.key_id).request_tokens_max == 100


def test_a_keys_page_shows_all_it_is_held_to_and_nothing_else(owner, organisation):
    own(organisation, 11, level="project", scope_id=organisation.project_id, window="day")
    own(organisation, 12, level="key", scope_id=organisation.key_id, window="second")
    successor = rotate_key(tenant_id=organisation.id, key_id=organisation.key_id).key
    set_restriction(
        tenant_id=organisation.id, level="key", scope_id=successor.id, request_tokens_max=777
    )
    for key_id, tokens in ((organisation.key_id, "the model"), (successor.id, "777")):
        page = words(owner.get(f"/keys/{key_id}/limits/"))
        assert "Requests per second 12" in page
        assert "Requests per day 11" in page
        assert "Requests per minute 6,000" in page
        assert ("777" in page) == (tokens == "777")
        assert f"scope=key:{key_id}" in owner.get(f"/keys/{key_id}/limits/").content.decode()
    page = owner.get(f"/limits/new/?scope=key:{successor.id}").content.decode()
    assert f'value="key:{successor.id}" selected' in page
