"""The table, its chart and its CSV are the same numbers, and they are what was metered."""

import csv
import io
import json
import re
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any

import pytest

from meterplane.kernel import clock
from meterplane.kernel.money import nano_to_text
from meterplane.metering.ingest import ingest_segment
from meterplane.portal.usage_state import GROUPS
from tests.metering.segments import message, settle
from tests.portal import history


class Tables(HTMLParser):
    """Every table of a page as rows of cell texts."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.cell: list[str] | None = None

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in {"td", "th"}:
            self.cell = []

    def handle_endtag(self, tag):
        if tag in {"td", "th"} and self.cell is not None:
            self.tables[-1][-1].append("".join(self.cell).strip())
            self.cell = None

    def handle_data(self, data):
        if self.cell is not None:
            self.cell.append(data)


def tables(response) -> list[list[list[str]]]:
    parser = Tables()
    parser.feed(response.content.decode())
    return parser.tables


def chart(response) -> Any:
    found = re.search(r'id="chart-data" type="application/json">(.*?)</script>', response.text)
    assert found is not None
    return json.loads(found[1])


def dollars(text: str) -> str:
    """`$0.00313000` as the CSV writes it."""
    return text.removeprefix("$").replace(",", "").rstrip("0").rstrip(".") or "0"


pytestmark = pytest.mark.usefixtures("third_of_november")


@pytest.fixture
def settles(third_of_november, organisation):
    """A week of usage of three keys."""
    history.offer()
    return history.live_through(organisation, days=7)


@pytest.mark.parametrize("group", list(GROUPS))
@pytest.mark.parametrize("period", ["7d", "month"])
def test_the_csv_is_the_table(owner, settles, group, period):
    shown = tables(owner.get(f"/usage/?period={period}&group={group}"))[0]
    download = owner.get(f"/usage/?period={period}&group={group}&format=csv")
    rows = list(csv.reader(io.StringIO(download.content.decode())))
    from_table = [
        [name, *(cell.replace(",", "") for cell in (requests, errors, t_in, t_out)), dollars(cost)]
        for name, requests, errors, t_in, t_out, _share, cost in shown[1:]
    ]
    assert [row[:6] for row in rows[1:]] == from_table
    assert download["Content-Type"] == "text/csv; charset=utf-8"


def test_the_totals_are_what_was_metered(owner, settles):
    since = clock.now().replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=6)
    rows = list(csv.reader(io.StringIO(owner.get("/usage/?format=csv").content.decode())))
    expected = [each for each in settles if each.admitted_at_ms >= clock.to_ms(since)]
    assert rows[-1][0] == "Total"
    assert rows[-1][1] == str(len(expected))
    assert rows[-1][2] == str(sum(each.status != "ok" for each in expected))
    assert rows[-1][5] == nano_to_text(sum(each.cost_nano for each in expected))
    columns = list(zip(*rows[1:-1], strict=True))
    assert [sum(map(int, columns[n])) for n in (1, 2, 3, 4)] == [int(c) for c in rows[-1][1:5]]


@pytest.mark.parametrize(("metric", "column"), [("spend", 5), ("requests", 1)])
def test_the_bars_add_up_to_the_table(owner, settles, metric, column):
    drawn = chart(owner.get(f"/usage/?metric={metric}"))
    rows = list(csv.reader(io.StringIO(owner.get("/usage/?format=csv").content.decode())))
    by_label = {series["label"]: sum(series["values"]) for series in drawn["series"]}
    as_text = nano_to_text if metric == "spend" else str
    assert {label: as_text(total) for label, total in by_label.items()} == {
        row[0]: row[column] for row in rows[1:-1]
    }
    assert len(drawn["labels"]) == 7


def test_codes_are_shown_as_words_and_deployments_beside_their_model(owner, organisation):
    ingest_segment(
        message(
            [
                settle(organisation, surface="grpc.stream_infer", deployment="canary"),
                settle(organisation, service_tier="batch", deployment="default"),
            ]
        )
    )
    named = {
        "surface": {"gRPC stream", "Chat completions"},
        "service_tier": {"Standard", "Batch"},
        "deployment": {"tiny-lm @ canary", "tiny-lm @ default"},
    }
    for group, names in named.items():
        page = owner.get(f"/usage/?period=today&group={group}")
        assert {cells[0] for cells in tables(page)[0][1:-1]} == names
        assert {series["label"] for series in chart(page)["series"]} == names
    assert page.text.count(">batch</span>") == 1
    assert "By deployment" in page.text


def test_only_the_six_largest_have_a_colour_of_their_own(owner, organisation):
    ingest_segment(
        message([settle(organisation, model=f"m{n}", cost_nano=1000 - n) for n in range(9)])
    )
    drawn = chart(owner.get("/usage/?period=today"))
    assert [series["label"] for series in drawn["series"]] == [
        *(f"m{n}" for n in range(6)),
        "Other",
    ]
    assert sum(drawn["series"][-1]["values"]) == 3 * 1000 - (6 + 7 + 8)


def test_the_state_is_in_the_address_and_nonsense_is_the_default(owner, settles):
    page = owner.get("/usage/?period=30d&group=status&metric=tokens").text
    assert "Tokens per day" in page
    assert "/usage/?period=30d&amp;group=status&amp;metric=tokens&amp;format=csv" in page
    assert owner.get("/usage/?period=x&group=' OR 1&metric=&before=nope").status_code == 200


def test_only_todays_usage_is_asked_for_again_by_itself(owner, settles):
    assert "hx-trigger" in owner.get("/usage/?period=today").text
    assert "hx-trigger" not in owner.get("/usage/?period=7d").text


def test_requests_are_paged_without_gap_or_repeat(owner, settles):
    seen: list[str] = []
    path = "/usage/"
    while path:
        page = owner.get(path).text
        seen += re.findall(r'href="/requests/([0-9a-f-]{36})/"', page)
        older = re.search(r'href="([^"]*before=[^"]*)#recent">Older', page)
        path = older[1].replace("&amp;", "&") if older and len(seen) < 120 else ""
    newest_first = sorted(settles, key=lambda each: each.admitted_at_ms, reverse=True)
    instants = {str(each.request_id): each.admitted_at_ms for each in settles}
    assert len(seen) == len(set(seen)) >= 100
    assert [instants[each] for each in seen] == [
        each.admitted_at_ms for each in newest_first[: len(seen)]
    ]


def test_a_name_that_looks_like_a_formula_stays_text_in_a_spreadsheet(owner, organisation):
    from tenants.keys import issue_key

    issued = issue_key(
        tenant_id=organisation.id, project_id=organisation.project_id, name="=HYPERLINK(1)"
    )
    ingest_segment(message([settle(organisation, key_id=issued.key.id)]))
    text = owner.get("/usage/?group=key&format=csv").content.decode()
    assert "'=HYPERLINK(1)" in text


def test_a_name_that_looks_like_markup_stays_text(owner, organisation):
    ingest_segment(message([settle(organisation, model="</script><script>x")]))
    for path in ("/", "/usage/?period=today"):
        assert "</script><script>x" not in owner.get(path).text


def test_an_empty_period_shows_the_command_that_fills_it(owner, organisation):
    history.offer()
    page = owner.get("/usage/").text
    assert "No usage in this period" in page
    assert "/v1/embeddings" in page


def test_the_overview_counts_today_and_the_month(owner, organisation):
    ingest_segment(
        message(
            [
                settle(organisation, cost_nano=2 * 10**9, reserved_nano=2 * 10**9),
                settle(organisation, status="error"),
            ]
        )
    )
    page = owner.get("/").text
    assert "$2.00" in page
    assert "50.0 %" in page
