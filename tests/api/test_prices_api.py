"""Price books and contracts over the control API: drafted, previewed, published; agreed, ended."""

import pytest

from billing.invoicing.close import close_period
from meterplane.kernel import clock
from meterplane.policy.follow_prices import follow_prices
from tests.api.test_limits_api import Operator
from tests.billing.rating.agreements import GRADUATED
from tests.billing.world import ingest, publish_prices, used, utc
from tests.tenants.test_keys import compiled

pytestmark = pytest.mark.django_db
BOOK = "/api/v1/price-books/standard/versions"
AT = "/api/v1/organisations/acme"
UNIT = {"type": "unit", "unit_amount": "0.02"}
ENTRIES = [
    {"meter": "requests", "price_model": GRADUATED, "display_name": "Calls"},
    {"meter": "input_tokens", "price_model": UNIT | {"unit_amount": "0"}},
    {"meter": "output_tokens", "price_model": UNIT | {"unit_amount": "0"}},
]


@pytest.fixture
def operator(onboard):
    with clock.frozen(utc(11, 24, 12)):
        with clock.frozen(utc(9, 10)):
            yield_to = onboard("acme")
        program = Operator()
        program.tenant = yield_to
        yield program


def test_a_version_is_drafted_looked_at_previewed_and_published(operator):
    prices = publish_prices()
    ingest(used(operator.tenant, prices, utc(10, 3), requests=2000))
    made = operator.ask("post", BOOK, {"entries": ENTRIES}, status=201)
    assert (made["status"], made["number"], made["findings"]) == ("draft", 2, [])
    assert made["entries"][0]["display_name"] == "Calls"
    at = f"/api/v1/price-versions/{made['id']}"
    preview = operator.ask("get", f"{at}/preview?month=2026-10")
    assert preview["tenants"] == [
        {
            "organisation": "acme", "currency": "USD", "old": "20.00", "new": "15.00",
            "difference": "-5.00", "problem": "",
        }
    ]  # fmt: skip
    published = operator.ask("post", f"{at}/publish", {"effective_at": "2026-12-01T00:00:00Z"})
    assert (published["status"], published["effective_at"]) == (
        "published", "2026-12-01T00:00:00Z",
    )  # fmt: skip
    assert published["unit_prices"][0]["standard"]["requests"] == "0.01"
    assert operator.ask("post", f"{at}/publish", status=409)["code"] == "version_not_draft"
    assert [each["status"] for each in operator.ask("get", BOOK)] == ["published", "superseded"]
    # Read as it stands, it can be drafted again.
    read = operator.ask("get", at)
    again = operator.ask("post", BOOK, {"entries": read["entries"]}, status=201)
    assert [each["price_model"] for each in again["entries"]] == [
        each["price_model"] for each in read["entries"]
    ]


def test_policies_follow_a_version_when_its_time_has_come(operator):
    publish_prices()
    made = operator.ask("post", BOOK, {"entries": ENTRIES}, status=201)
    body = {"effective_at": "2026-12-01T00:00:00Z"}
    operator.ask("post", f"/api/v1/price-versions/{made['id']}/publish", body)

    def said():
        return str(compiled(operator.tenant.id, operator.tenant.key_id).price_version_id)

    assert follow_prices() == 0
    assert said() != made["id"]
    with clock.frozen(utc(12, 1)):
        assert follow_prices() == 1
        assert said() == made["id"]
        assert follow_prices() == 0


def test_what_is_wrong_is_a_problem_with_its_field(operator):
    def refused(path, body, status=422, method="post"):
        problem = operator.ask(method, path, body, status=status)
        return problem["code"], problem.get("field")

    wrong = [ENTRIES[0] | {"match": {"colour": "red"}}]
    assert refused(BOOK, {"entries": wrong}) == ("dimension_unknown", "entries[0].match.colour")
    assert refused(BOOK, {"entries": "x"}) == ("field_invalid", "entries")
    assert refused(BOOK, {"entries": []}, 400)[0] == "prices_empty"
    assert refused(BOOK, {"entrys": []}, 400) == ("body_invalid", "entrys")
    assert refused(BOOK, {"entries": ENTRIES, "currency": "XXX"}, 400)[0] == "currency_unknown"
    assert refused(BOOK, [], 400)[0] == "body_invalid"
    model = GRADUATED | {"tiers": [{"up_to": "5", "unit_amount": "1"}]}
    code, field = refused(BOOK, {"entries": [ENTRIES[0] | {"price_model": model}]})
    assert code == "price_model_invalid"
    assert field is not None
    assert field.startswith("entries[0].price_model.tiers")
    nowhere = "/api/v1/price-versions/01900000-0000-7000-8000-000000000000"
    assert refused(nowhere, None, 404, "get")[0] == "version_missing"
    assert refused(f"{nowhere}/publish", {}, 404)[0] == "version_missing"
    assert refused(f"{nowhere}/preview", None, 404, "get")[0] == "version_missing"
    assert refused("/api/v1/price-books/none/versions", None, 404, "get")[0] == "book_not_found"
    draft = operator.ask("post", BOOK, {"entries": ENTRIES[:1]}, status=201)
    assert draft["findings"] == []  # no model is named or on offer
    publish_prices()
    at = f"/api/v1/price-versions/{draft['id']}"
    for month in ("9999-12", "2026-13", ""):
        assert refused(f"{at}/preview?month={month}", None, 400, "get") == (
            "month_invalid",
            "month",
        )
    found = operator.ask("get", at)["findings"]
    assert {each["code"] for each in found} == {"prices_incomplete"}
    assert refused(f"{at}/publish", {"confirm": ["gap"]})[0] == "prices_incomplete"
    assert refused(f"{at}/publish", {"confirm": "gap"}, 400) == ("body_invalid", "confirm")


def test_a_contract_is_agreed_read_replaced_and_ended(operator):
    publish_prices()
    close_period(operator.tenant.id, utc(11, 1))
    body = {
        "starts_at": "2026-11-01T00:00:00Z", "discount_percent": "12.5", "minimum_spend": "100",
        "entries": [ENTRIES[0]], "note": "as signed",
    }  # fmt: skip
    made = operator.ask("post", f"{AT}/contracts", body, status=201)
    assert (made["number"], made["discount_percent"], made["minimum_spend"]) == (
        1,
        "12.5",
        "100.00",
    )
    assert made["created_by"].startswith("operator key tests")
    assert operator.ask("get", f"{AT}/contracts") == [made]
    over = operator.ask("post", f"{AT}/contracts", body, status=409)
    assert over["code"] == "contract_overlaps"
    at = f"{AT}/contracts/{made['id']}"
    ended = operator.ask("post", f"{at}/end", {"at": "2026-12-24T00:00:00Z"})
    assert ended["ends_at"] == "2026-12-24T00:00:00Z"
    assert [each["kind"] for each in operator.ask("get", at)["events"]] == ["agreed", "ended"]
    late = operator.ask("post", f"{at}/end", {"at": "2027-01-01T00:00:00Z"}, status=422)
    assert (late["code"], late["field"]) == ("contract_invalid", "at")
    operator.ask("get", f"{AT}/contracts/01900000-0000-7000-8000-000000000000", status=404)


def test_an_invoice_and_the_one_to_come_show_how_each_line_comes_about(operator):
    draft = operator.ask("post", BOOK, {"entries": ENTRIES, "currency": "USD"}, status=201)
    operator.ask("post", f"/api/v1/price-versions/{draft['id']}/publish")
    ingest(
        used(operator.tenant, draft["id"], utc(10, 3), requests=1500),
        used(operator.tenant, draft["id"], utc(11, 3), requests=10),
    )
    made = close_period(operator.tenant.id, utc(11, 1))
    assert made is not None
    told = operator.ask("get", f"{AT}/invoices/{made.id}")
    (line,) = told["lines"]
    assert (told["total"], line["amount"], line["quantity"]) == ("12.50", "12.50", "1500")
    assert (line["unit_price"], line["kind"], line["entry"]) == (
        None, "usage", draft["entries"][0]["id"],
    )  # fmt: skip
    assert [each["amount"] for each in line["breakdown"]["tiers"]] == ["10", "2.5"]
    upcoming = operator.ask("get", f"{AT}/invoices/upcoming")
    assert (upcoming["status"], upcoming["total"], upcoming["id"]) == ("upcoming", "0.10", None)
    shown = [upcoming[name] for name in ("used", "credit", "subtotal", "tax", "taxes", "tax_note")]
    assert shown == ["0.10", "0.00", "0.10", "0.00", [], ""]
    operator.ask("get", f"{AT}/invoices/01900000-0000-7000-8000-000000000000", status=404)
