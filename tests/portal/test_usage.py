"""The table, its chart and its CSV are the same numbers, and they are what was metered."""

import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta
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


@pytest.mark.parametrize("period", ["7d", "month"])
def test_the_csv_is_the_table(owner, settles, period):
    for group in GROUPS:
        shown = tables(owner.get(f"/usage/?period={period}&group={group}"))[0]
        download = owner.get(f"/usage/?period={period}&group={group}&format=csv")
        rows = list(csv.reader(io.StringIO(download.content.decode())))
        from_table = [
            [name, *(cell.replace(",", "") for cell in numbers), dollars(cost)]
            for name, *numbers, _share, cost in shown[1:]
        ]
        assert [row[:6] for row in rows[1:]] == from_table, group
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


@pytest.fixture
def tagged(third_of_november, organisation):
    """Requests of two teams, one of which has no tag, around a midnight of Berlin."""
    at_ms = clock.to_ms(datetime(2026, 11, 2, 22, 59, tzinfo=UTC))
    frames = [
        settle(organisation, at_ms=at_ms, tags={"team": "ads"}),
        settle(organisation, at_ms=at_ms + 120_000, tags={"team": "ads"}, model="identity"),
        settle(organisation, at_ms=at_ms, tags={"team": "A&B <search>"}, status="error"),
        settle(organisation, at_ms=at_ms),
    ]
    ingest_segment(message(frames))
    return frames


def test_tags_that_exist_are_offered_to_group_by_and_no_others(owner, tagged, onboard):
    stranger = onboard("globex")
    ingest_segment(message([settle(stranger, tags={"secret-project": "x"})]))
    page = owner.get("/usage/?group=tag:team")
    assert '<option value="tag:team" selected>By team</option>' in page.text
    assert {cells[0]: cells[1] for cells in tables(page)[0][1:]} == {
        "ads": "2", "A&B <search>": "1", "without team": "1", "Total": "4",
    }  # fmt: skip
    assert "secret-project" not in page.text
    assert "By model" in owner.get("/usage/?group=tag:secret-project").text


def test_a_filter_holds_for_figures_table_csv_series_and_requests(owner, tagged):
    """What a row links to shows that row alone, everywhere."""
    path = "/usage/?model=tiny-lm&tag:team=ads&tag:team=A%26B+%3Csearch%3E"
    page = owner.get(path)
    rows = tables(page)[0]
    assert [cells[:2] for cells in rows[1:]] == [["tiny-lm", "2"], ["Total", "2"]]
    assert "50.0 %" in page.text
    shown = set(re.findall(r'href="/requests/([0-9a-f-]{36})/"', page.text))
    assert shown == {str(tagged[0].request_id), str(tagged[2].request_id)}
    table = list(csv.reader(io.StringIO(owner.get(path + "&format=csv").text)))
    assert [row[1] for row in table[1:]] == ["2", "2"]
    series = list(csv.DictReader(io.StringIO(owner.get(path + "&format=csv-series").text)))
    assert [(row["at"], row["model"], row["events"]) for row in series] == [
        ("2026-11-02T00:00:00Z", "tiny-lm", "2")
    ]
    for label in ("Model tiny-lm", "team ads", "team A&amp;B &lt;search&gt;"):
        assert f'aria-label="Without the filter {label}"' in page.text


def test_a_chip_is_taken_off_by_its_own_link(owner, tagged):
    page = owner.get("/usage/?period=30d&tag:team=ads&model=tiny-lm").text
    links = dict(re.findall(r'<a href="([^"]*)" aria-label="Without the filter (\w+)', page))
    assert {name: address for address, name in links.items()} == {
        "team": "/usage/?period=30d&amp;model=tiny-lm",
        "Model": "/usage/?period=30d&amp;tag%3Ateam=ads",
    }
    assert "Nothing matches these filters" in owner.get("/usage/?model=none-such").text


def test_days_begin_in_the_zone_that_was_chosen_and_it_is_remembered(owner, tagged):
    """23:01 UTC on the second of November is the third in Berlin."""
    utc = chart(owner.get("/usage/?metric=requests"))
    assert [sum(series["values"][-2:]) for series in utc["series"]] == [3, 1]
    assert [series["values"][-1] for series in utc["series"]] == [0, 0]
    berlin = owner.get("/usage/?metric=requests&tz=Europe/Berlin")
    by_label = {series["label"]: series["values"] for series in chart(berlin)["series"]}
    assert (by_label["identity"][-1], by_label["tiny-lm"][-2]) == (1, 3)
    assert "28 Oct \N{EN DASH} 3 Nov 2026 · Europe/Berlin" in berlin.text
    assert chart(owner.get("/usage/?metric=requests")) == chart(berlin)
    assert chart(owner.get("/usage/?metric=requests&tz=Mars/Olympus")) == chart(berlin)
    assert chart(owner.get("/usage/?metric=requests&tz=UTC")) == utc


@pytest.mark.parametrize(
    ("period", "bucket", "bars"),
    [("7d", "hour", 7 * 24), ("7d", "month", 7), ("90d", "month", 4), ("12m", "", 12),
     ("12m", "day", 338), ("today", "day", 24)],
)  # fmt: skip
def test_a_period_is_drawn_by_a_bucket_it_has_room_for(owner, tagged, period, bucket, bars):
    page = owner.get(f"/usage/?period={period}&bucket={bucket}&metric=requests&tz=Europe/Berlin")
    drawn = chart(page)
    assert len(drawn["labels"]) == bars
    total = int(tables(page)[0][-1][1])
    assert sum(sum(series["values"]) for series in drawn["series"]) == total


def test_what_only_single_requests_tell_is_shown_of_thirty_days_and_said(owner, tagged):
    page = owner.get("/usage/?period=12m&tz=Asia/Kolkata")
    assert page.status_code == 200
    assert "use tz=UTC" in page.text
    assert len(chart(page)["labels"]) == 30
    assert int(tables(page)[0][-1][1]) == 4


def test_a_day_of_25_hours_is_drawn_whole(owner, organisation):
    with clock.frozen(datetime(2026, 10, 25, 20, tzinfo=UTC)):
        first = clock.to_ms(datetime(2026, 10, 24, 22, tzinfo=UTC))
        frames = [settle(organisation, at_ms=first + hour * 3_600_000) for hour in range(20)]
        ingest_segment(message(frames))
        page = owner.get("/usage/?period=today&metric=requests&tz=Europe/Berlin")
    drawn = chart(page)
    assert len(drawn["labels"]) == 25
    assert drawn["labels"].count("02:00") == 2
    assert drawn["series"][0]["values"] == [1] * 20 + [0] * 5
