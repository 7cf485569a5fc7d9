"""Usage, requests and receipts on the command line, of a real web process."""

import csv
import io
import json

import pytest

from billing.pricing.book import ModelPrices
from meterplane.contracts.receipt import key_set, receipt, signing_keys
from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from meterplane.metering.ingest import ingest_segment
from tenants.keys import issue_operator_key
from tests.billing.world import publish_prices
from tests.conftest import free_port
from tests.contracts.test_receipt import SETTLED
from tests.metering.external.sent import event as event_sent
from tests.metering.segments import message, settle

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def event(organisation):
    """A request that is in usage, at a published price."""
    version = publish_prices({"tiny-lm": ModelPrices(150_000, 600_000, 0)})
    made = settle(organisation, price_version_id=version, tags={"team": "=search"})
    ingest_segment(message([made]))
    return made


def test_usage_is_a_table_csv_or_json(run, event):
    asked = ("usage", "-g", "tag:team", "--bucket", "day", "--last", "2d", "--tag", "team==search")
    told = run(*asked)
    assert told.exit_code == 0
    assert told.stdout.splitlines()[0].split()[:3] == ["at", "tag:team", "currency"]
    assert told.stdout.splitlines()[-1].split()[0] == "total"
    [row] = csv.DictReader(io.StringIO(run(*asked, "--csv").stdout))
    assert (row["events"], row["cost"], row["currency"]) == ("1", "0.0000135", "USD")
    assert row["tag:team"] == "'=search"  # a spreadsheet would run it
    told = json.loads(run(*asked, "--json").stdout)
    assert told["data"][0]["groups"] == {"tag:team": "=search"}


def test_requests_are_listed_over_pages_and_shown(run, event, organisation):
    ingest_segment(message([settle(organisation) for _ in range(120)]))
    told = json.loads(run("requests", "list", "--limit", "110", "--json").stdout)
    assert len({each["id"] for each in told["data"]}) == 110
    assert told["has_more"]
    table = run("requests", "list", "--tag", "team==search", "--model", "tiny-lm")
    assert str(event.request_id) in table.stdout
    assert len(table.stdout.splitlines()) == 2
    assert "go on with --after" in run("requests", "list", "--limit", "1").stderr
    shown = run("requests", "show", str(event.request_id)).stdout
    assert "0.0000135" in shown
    assert "prices.input_token" in shown


def test_a_receipt_is_fetched_verified_and_proves_nothing_once_it_is_changed(
    run, event, web, tmp_path
):
    file, keys = tmp_path / "receipt.json", tmp_path / "jwks.json"
    assert run("receipt", "get", str(event.request_id), "-o", str(file)).exit_code == 0
    online = run("receipt", "verify", str(file), METERPLANE_API_KEY="")
    assert (online.exit_code, online.stdout.split()[0]) == (0, "VALID")
    assert "charged 0.0000135 USD" in online.stdout
    keys.write_bytes(json.dumps(key_set(signing_keys("11" * 32))).encode())
    other = run("receipt", "verify", str(file), "--jwks", str(keys), METERPLANE_URL="")
    assert (other.exit_code, other.stdout.split()[0]) == (1, "INVALID")
    file.write_text(file.read_text().replace('"tokens_out":20', '"tokens_out":2'))
    changed = run("receipt", "verify", str(file), "--jwks", f"{web}/.well-known/jwks.json")
    assert (changed.exit_code, changed.stdout.split()[0]) == (1, "INVALID")
    assert "tokens_out" in changed.stdout


def test_a_receipt_is_verified_without_any_server(run, tmp_path):
    key = signing_keys("11" * 32)[0]
    file, keys = tmp_path / "receipt.json", tmp_path / "jwks.json"
    file.write_bytes(receipt(SETTLED, key))
    keys.write_text(json.dumps(key_set([key])))
    offline = {"METERPLANE_URL": "", "METERPLANE_API_KEY": ""}
    told = run("receipt", "verify", str(file), "--jwks", str(keys), **offline)
    assert (told.exit_code, told.stdout.split()[0]) == (0, "VALID")


@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        (("usage",), {"METERPLANE_URL": ""}, "set METERPLANE_URL"),
        (("usage",), {"METERPLANE_URL": "ftp://x"}, "is no address"),
        (("usage",), {"METERPLANE_API_KEY": ""}, "set METERPLANE_API_KEY"),
        (("usage",), {"METERPLANE_API_KEY": "mp_live_nobody"}, "missing or mistyped"),
        (("usage",), {"METERPLANE_API_KEY": "mp\u2713"}, "characters no key has"),
        (("usage", "--tz", "Mars"), {}, "Mars"),
        (("usage", "--tag", "team"), {}, "write name=value"),
        (("usage", "--csv", "--json"), {}, "Choose one"),
        (("requests", "show", "../keys"), {}, "is no request id"),
        (("requests", "show", str(uuid7(clock.now_ms() - 3_600_000))), {}, "No such request"),
        (("receipt", "verify", "/nowhere"), {}, "cannot be read"),
        (("receipt", "verify", __file__, "--jwks", __file__), {}, "holds no key set"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(run, words, environment, said):
    told = run(*words, **environment)
    assert told.exit_code == 2
    assert said in told.stderr
    assert "Traceback" not in told.output
    assert not told.stdout


def test_events_of_a_file_are_received_by_the_control_plane_once(run, web, tmp_path):
    file = tmp_path / "events.ndjson"
    lines = [event_sent(str(number)) for number in range(3)] + [event_sent("3", subject="nobody")]
    file.write_text("\n".join(map(json.dumps, lines)))
    keyed = {"METERPLANE_API_KEY": issue_operator_key("tests")}
    told = run("events", "send", str(file), **keyed)
    assert told.exit_code == 1
    assert "Events: 3 accepted, 1 invalid." in told.stdout
    assert "nobody" in told.stdout.splitlines()[-1]
    file.write_text("\n".join(map(json.dumps, lines[:3])))
    again = run("events", "send", str(file), **keyed)
    assert (again.exit_code, again.stdout) == (0, "Events: 3 duplicate.\n")
    refused = run("events", "send", str(file))  # a tenant's key
    assert refused.exit_code == 2
    assert "From event 1 on nothing was taken" in refused.stderr


def test_a_server_that_is_not_there_is_named(run):
    address = f"http://127.0.0.1:{free_port()}"
    told = run("usage", METERPLANE_URL=address)
    assert told.exit_code == 2
    assert f"{address} cannot be reached" in told.stderr
