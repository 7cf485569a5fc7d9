"""A meter's definition is checked, and its versions follow one another and never change."""

import json
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from meterplane.catalog.meters import BUILT_IN, at, list_meters, versions_of
from meterplane.catalog.meters_change import change_meter, create_meter
from meterplane.catalog.meters_check import read_definition
from meterplane.catalog.meters_sync import sync_meters
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from tests import environment

CATALOG = Path(__file__).resolve().parents[2] / "infra" / "triton" / "catalog.json"
GPU = {
    "name": "GPU hours", "unit": "hour", "event_type": "com.acme.training", "aggregation": "sum",
    "field": "data.gpu_seconds", "dimensions": ["project", "data.gpu"],
    "filters": [{"field": "data.gpu", "op": "in", "value": ["h200", "b200"]}],
    "conversion": {"operation": "divide", "by": "3600"},
    "rounding": {"rule": "half_up", "digits": 6},
}  # fmt: skip
REQUESTS = {
    "name": "Tokens", "unit": "token", "event_type": "meterplane.request", "aggregation": "sum",
    "field": "tokens_in",
}  # fmt: skip


def test_what_is_well_said_is_taken():
    read_definition(GPU)
    read_definition(REQUESTS | {"dimensions": ["model", "key", "tags.team"]})
    read_definition(REQUESTS | {"aggregation": "unique", "field": "key"})
    read_definition(GPU | {"conversion": {"operation": "divide", "by": "12.5"}, "rounding": {}})


@pytest.mark.parametrize(
    ("base", "changes", "field", "says"),
    [
        (GPU, {"name": " "}, "name", "1 to 80"),
        (GPU, {"unit": "x" * 33}, "unit", "1 to 32"),
        (GPU, {"colour": "red"}, None, "colour"),
        (GPU, {"aggregation": "average"}, None, "average"),
        (GPU, {"event_type": "meterplane.invoice"}, "event_type", "meterplane.request alone"),
        (GPU, {"aggregation": "count"}, "field", "Did you mean unique?"),
        (GPU, {"field": ""}, "field", "needs the field"),
        (GPU, {"field": "gpu_seconds"}, "field", "data.gpu_seconds"),
        (GPU, {"field": "data.a.b.c.d.e.f"}, "field", "up to 5 names"),
        (GPU, {"field": "data.a'; DROP TABLE meter"}, "field", "no path"),
        (GPU, {"field": "source"}, "field", "no path"),
        (GPU, {"dimensions": ["data.a", "data.a"]}, "dimensions", "each once"),
        (GPU, {"dimensions": [f"data.{n}" for n in range(6)]}, "dimensions", "at most 5"),
        (GPU, {"dimensions": ["model"]}, "dimensions", "no path"),
        (GPU, {"filters": [{"field": "data.a", "op": "in", "value": "x"}]}, "filters", "a list"),
        (GPU, {"filters": [{"field": "data.a", "op": "eq", "value": ["x"]}]}, "filters", "none"),
        (GPU, {"filters": [{"field": "data.a", "op": "in", "value": []}]}, "filters", "1 to 100"),
        (GPU, {"filters": [{"field": "data.a", "op": "~", "value": "x"}]}, None, "~"),
        (GPU, {"filters": [{"field": "data.a", "op": "eq", "value": "x" * 257}]}, "filters", "256"),
        (GPU, {"filters": [{"field": "data.a", "op": "eq", "value": "x"}] * 11}, "filters", "10"),
        (GPU, {"conversion": {"operation": "divide", "by": "0"}}, "conversion", "above 0"),
        (GPU, {"conversion": {"operation": "divide", "by": "1e3"}}, "conversion", "as text"),
        (GPU, {"conversion": {"operation": "divide", "by": 3600}}, None, "str"),
        (GPU, {"rounding": {"rule": "none"}}, "rounding", "may have no end"),
        (GPU, {"rounding": {"rule": "ceil", "digits": 13}}, "rounding", "0 to 12"),
        (REQUESTS, {"field": "cost_nano"}, "field", "no quantity 'cost_nano'"),
        (REQUESTS, {"field": "model"}, "field", "no quantity 'model'"),
        (REQUESTS, {"field": "data.x"}, "field", "no quantity"),
        (REQUESTS, {"aggregation": "unique", "field": "tokens_in"}, "field", "not told apart by"),
        (REQUESTS, {"dimensions": ["digest"]}, "dimensions", "not told apart by 'digest'"),
        (REQUESTS, {"dimensions": ["tags."]}, "dimensions", "tag's name"),
        (REQUESTS, {"filters": [{"field": "model", "op": "eq", "value": 7}]}, "filters", "text"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_field(base, changes, field, says):
    with pytest.raises(CallerError) as refused:
        read_definition(base | changes)
    assert (refused.value.code, refused.value.field) == ("meter_invalid", field)
    assert says in refused.value.message


@pytest.mark.parametrize("value", [None, [], "x", 7, {}])
def test_what_is_no_definition_is_refused(value):
    with pytest.raises(CallerError) as refused:
        read_definition(value)
    assert refused.value.code == "meter_invalid"


@pytest.mark.django_db
def test_a_change_is_another_version_from_an_instant_on():
    first, second = read_definition(GPU), read_definition(GPU | {"unit": "GPU-hour"})
    create_meter("gpu_hours", first, by="ops")
    later = clock.now() + timedelta(days=1)
    change_meter("gpu_hours", second, effective_from=later, by="ops")
    one, two = versions_of("gpu_hours")
    assert (one.number, one.definition, one.effective_until) == (1, first, later)
    assert (two.number, two.definition, two.effective_until) == (2, second, None)
    assert at([one, two], clock.now()) == one
    assert at([one, two], later) == two
    assert change_meter("gpu_hours", second, effective_from=None, by="ops") == two
    third = read_definition(GPU | {"unit": "h"})
    for begins_at, code in (
        (clock.now() - timedelta(seconds=1), "effective_from_past"),
        (later, "effective_from_taken"),
        (None, "effective_from_taken"),
    ):
        with pytest.raises(CallerError) as refused:
            change_meter("gpu_hours", third, effective_from=begins_at, by="ops")
        assert refused.value.code == code
    assert len(versions_of("gpu_hours")) == 2
    with clock.frozen(later + timedelta(days=1)):
        three = change_meter("gpu_hours", third, effective_from=None, by="ops")
        assert (three.number, three.effective_from) == (3, clock.now())


@pytest.mark.django_db
def test_the_products_own_meters_are_there_and_stay():
    assert list(BUILT_IN) == ["input_tokens", "output_tokens", "requests"]
    create_meter("a", read_definition(GPU), by="ops")
    assert [versions[0].slug for versions in list_meters()] == [*BUILT_IN, "a"]
    for slug in BUILT_IN:
        with pytest.raises(CallerError) as refused:
            change_meter(slug, read_definition(GPU), effective_from=None, by="ops")
        assert (refused.value.code, refused.value.status) == ("meter_built_in", 409)
        with pytest.raises(CallerError) as refused:
            create_meter(slug, read_definition(GPU), by="ops")
        assert refused.value.code == "meter_exists"


@pytest.mark.django_db
def test_a_catalog_file_makes_meters_and_versions_of_what_it_changes(tmp_path):
    path = tmp_path / "catalog.json"

    def sync(*meters):
        path.write_text(json.dumps({"meters": meters}))
        return sync_meters(path)

    one, two = GPU | {"slug": "one"}, GPU | {"slug": "two"}
    assert sync(one, two) == 2
    sync(one, two | {"unit": "h"})
    sync(two | {"unit": "h"})
    assert [len(versions_of(slug)) for slug in ("one", "two")] == [1, 2]
    for wrong, says in [
        ([GPU], "meters[0] needs a slug"),
        ([one | {"unit": "h"}, two | {"field": ""}], "meter 'two': sum needs the field"),
        ([GPU | {"slug": "requests"}], "There is a meter 'requests'"),
    ]:
        with pytest.raises(CallerError) as refused:
            sync(*wrong)
        assert refused.value.code == "catalog_invalid"
        assert says in refused.value.message
    assert [len(versions_of(slug)) for slug in ("one", "two")] == [1, 2]
    assert sync_meters(CATALOG) == 1


@pytest.mark.django_db
@pytest.mark.parametrize("slug", ["", "A", "1a", "a" * 65, "a b", "a/b", "ä"])
def test_a_slug_can_be_part_of_an_address(slug):
    with pytest.raises(CallerError) as refused:
        create_meter(slug, read_definition(GPU), by="ops")
    assert refused.value.field == "slug"


@pytest.mark.django_db(transaction=True)
def test_nobody_changes_a_version_in_the_database():
    create_meter("gpu_hours", read_definition(GPU), by="ops")
    for role, wrong in [
        ("meterplane_app", psycopg.errors.InsufficientPrivilege),
        ("meterplane_system", psycopg.errors.InsufficientPrivilege),
        ("meterplane_owner", psycopg.errors.RestrictViolation),
    ]:
        for statement in ("UPDATE meter_version SET number = 2", "DELETE FROM meter_version"):
            with psycopg.connect(environment.database_url(role)) as session, pytest.raises(wrong):
                session.execute(statement)
