"""One request's page explains its cost to the nano."""

import re
from datetime import timedelta
from urllib.parse import quote

from billing.pricing.book import ModelPrices
from meterplane.contracts.receipt import verified
from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from meterplane.metering.ingest import ingest_segment
from tests.billing.world import publish_prices
from tests.metering.segments import message, settle
from tests.portal import history
from tests.portal.test_usage import tables


def dollars_pico(text: str) -> int:
    whole, _, fraction = text.removeprefix("$").replace(",", "").partition(".")
    return int(whole) * 10**12 + int(fraction.ljust(12, "0"))


def test_the_products_of_a_request_add_up_to_its_cost(owner, organisation):
    history.offer()
    settles = history.live_through(organisation, days=1)
    chat = next(each for each in settles if each.tokens_out and each.status == "ok")
    page = owner.get(f"/requests/{chat.request_id}/")
    cost_table = next(rows for rows in tables(page) if rows[0][:2] == ["Meter", "Quantity"])
    products = [dollars_pico(cells[3]) for cells in cost_table[1:-1]]
    assert sum(products) == chat.cost_nano * 1000
    for _meter, quantity, price, product in cost_table[1:-1]:
        assert int(quantity.replace(",", "")) * dollars_pico(price) == dollars_pico(product)
    assert str(chat.request_id) in page.text
    assert "Assistant, production" in page.text or "Notebooks" in page.text


def test_the_time_to_the_first_byte_and_the_rest_fill_the_timeline(owner, organisation):
    history.offer()
    settles = history.live_through(organisation, days=1)
    chat = next(each for each in settles if each.tokens_out and each.status == "ok")
    page = owner.get(f"/requests/{chat.request_id}/").text
    bar = re.findall(r'<rect class="([a-z-]+)" x="(\d+)" y="0" width="(\d+)"', page)
    assert [name for name, _, _ in bar] == ["queue", "first-token", "rest"]
    assert sum(int(width) for _, _, width in bar) == 1000
    assert int(bar[2][1]) == chat.first_byte_ms * 1000 // chat.total_ms


def facts(page) -> dict[str, str]:
    """The page's list of facts."""
    return dict(re.findall(r"<dt>(.*?)</dt><dd[^>]*>(.*?)</dd>", page.text))


def test_a_request_tells_who_served_it_how_long_and_where_its_counts_came_from(owner, organisation):
    event = settle(
        organisation,
        surface="kserve.generate",
        provenance="estimate",
        requested_model="big-lm",
        deployment="canary",
        retries=1,
        queue_us=840,
        compute_us=31_000,
        first_byte_ms=5,
        tensor_bytes_in=4096,
        trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
    )
    ingest_segment(message([event]))
    told = {
        "Model": "tiny-lm",
        "Asked for": "big-lm, answered by its fallback",
        "Deployment": "canary",
        "Servers asked before": "1",
        "Surface": "KServe generate",
        "Tier": "Standard",
        "Counts come from": "an estimate, one token a chunk",
        "Held at the gateway": "0.84 ms",
        "First byte after": "5 ms",
        "At the server": "31 ms",
        "Tensor bytes in": "4,096",
        "Trace": "4bf92f3577b34da6a3ce929d0e0e4736",
    }
    shown = facts(owner.get(f"/requests/{event.request_id}/"))
    assert {name: shown[name] for name in told} == told


def test_what_did_not_happen_to_a_request_has_no_line(owner, organisation):
    event = settle(organisation)
    ingest_segment(message([event]))
    shown = facts(owner.get(f"/requests/{event.request_id}/"))
    assert not {"Asked for", "Deployment", "Servers asked before"} & shown.keys()


def test_a_receipt_is_downloaded_from_its_request_by_members_only(owner, organisation, onboard):
    event, theirs = settle(organisation), settle(onboard("globex"))
    ingest_segment(message([event, theirs]))
    [link] = re.findall(
        r'href="([^"]+/receipt/)"', owner.get(f"/requests/{event.request_id}/").text
    )
    answer = owner.get(link)
    assert answer.headers["content-disposition"] == (
        f'attachment; filename="receipt-{event.request_id}.json"'
    )
    keys = owner.get("/.well-known/jwks.json").json()
    assert verified(answer.content, keys)["charge"]["amount_nano"] == str(event.cost_nano)
    assert owner.get(f"/requests/{theirs.request_id}/receipt/").status_code == 404


def test_where_our_servers_are_is_not_told(owner, organisation):
    event = settle(organisation, server="http://10.1.2.3:8000")
    ingest_segment(message([event]))
    assert "10.1.2.3" not in owner.get(f"/requests/{event.request_id}/").text


def test_a_batch_line_is_explained_at_its_batch_prices(owner, organisation):
    half = {"tiny-lm": ModelPrices(2_000_000, 6_000_000, 0, 1_000_000, 3_000_000, 0)}
    version = publish_prices(half)
    event = settle(organisation, price_version_id=version, service_tier="batch", cost_nano=70_000,
                   reserved_nano=70_000)  # fmt: skip
    ingest_segment(message([event]))
    page = owner.get(f"/requests/{event.request_id}/")
    cost_table = next(rows for rows in tables(page) if rows[0][:2] == ["Meter", "Quantity"])
    assert sum(dollars_pico(cells[3]) for cells in cost_table[1:-1]) == event.cost_nano * 1000
    assert "Batch unit prices pinned at admission" in page.text


def test_a_request_is_found_by_typing_its_id(owner, organisation):
    event = settle(organisation, tags={"team": "<ads>"})
    ingest_segment(message([event]))
    answer = owner.get(f"/requests/?q=+{event.request_id}+")
    assert (answer.status_code, answer["Location"]) == (302, f"/requests/{event.request_id}/")
    page = owner.get(answer["Location"])
    assert facts(page)["team"] == "&lt;ads&gt;"
    assert 'role="search"' in owner.get("/usage/").text


def test_an_id_that_names_nothing_is_answered_with_why_and_how_long_requests_are_kept(
    owner, organisation, settings
):
    settings.USAGE_RETENTION_DAYS = 100
    old = uuid7(clock.to_ms(clock.now() - timedelta(days=101)))
    for text, status, said in (
        ("nonsense", 400, "This is no request id"),
        ("<script>x", 400, "This is no request id"),
        (str(uuid7()), 404, "No request has this id"),
        (str(old), 404, "This request came in on"),
    ):
        for path in (f"/requests/?q={quote(text)}", f"/requests/{quote(text)}/"):
            page = owner.get(path)
            assert page.status_code == status, path
            assert said in page.text
            assert "kept for 100 days" in page.text
            assert "<script>x" not in page.text
    settings.USAGE_RETENTION_DAYS = 0
    empty = owner.get("/requests/")
    assert "Requests are kept for ever" in empty.text
    assert empty.status_code == 200
    assert 'role="alert"' not in empty.text


def test_what_was_reserved_is_what_it_cost_and_what_was_given_back(owner, organisation):
    event = settle(organisation, cost_nano=1_000_000_000, reserved_nano=3_500_000_000)
    ingest_segment(message([event]))
    page = owner.get(f"/requests/{event.request_id}/").text
    assert "$3.50 reserved, $2.50 given back" in page
