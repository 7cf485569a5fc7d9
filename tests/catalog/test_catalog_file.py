"""A catalog file is taken whole or not at all, and says which entry and field is wrong."""

import json

import pytest
from django.db import IntegrityError, transaction

from meterplane.catalog.entry import TargetEntry
from meterplane.catalog.models import Model
from meterplane.catalog.queries import catalog_entries
from meterplane.catalog.sync import sync_catalog
from meterplane.kernel.errors import CallerError

pytestmark = pytest.mark.django_db

SOUND = {
    "name": "mine",
    "display_name": "Mine",
    "upstream": "mine",
    "adapter": "vllm",
    "context_tokens_max": 4096,
    "output_tokens_max": 1024,
    "output_tokens_default": 256,
}


@pytest.fixture
def catalog_file(tmp_path):
    """Writes a catalog file; returns its path."""

    def write(*models):
        path = tmp_path / "catalog.json"
        path.write_text(json.dumps({"models": models}))
        return path

    return write


def refusal(path):
    with pytest.raises(CallerError) as refused:
        sync_catalog(path)
    assert refused.value.code == "catalog_invalid"
    assert str(path) in refused.value.message
    return refused.value.message


def test_fields_a_file_leaves_out_take_their_defaults(catalog_file):
    sync_catalog(catalog_file(SOUND | {"tokenizer": "folder", "bill_errors": True}))
    assert catalog_entries()["mine"].tokenizer == "folder"
    sync_catalog(catalog_file(SOUND))
    mine = catalog_entries()["mine"]
    assert (mine.tokenizer, mine.bill_errors, mine.targets) == ("", False, [])


def test_everything_a_file_says_about_serving_is_stored(catalog_file):
    canary = {"name": "canary", "weight": 5, "version": "4", "servers": ["http://b:8000"]}
    said = {
        "targets": [{"name": "stable", "weight": 95}, canary],
        "fallbacks": ["other"],
        "chat_template": "{{ messages }}",
        "tokenizer": "mine",
        "parameters": ["top_k"],
        "inputs": ["text_input"],
        "outputs": ["text_output"],
        "bill_errors": True,
        "secret_env": "MINE_KEY",
        "first_byte_timeout_s": 5,
        "idle_timeout_s": 2.5,
        "duration_s_max": 60,
        "in_flight_max": 4,
        "queue_max": 100,
        "queue_s_max": 2.5,
    }
    sync_catalog(catalog_file(SOUND | said, SOUND | {"name": "other"}))
    mine = catalog_entries()["mine"]
    stored = {name: getattr(mine, name) for name in said}
    assert stored == said | {
        "targets": [TargetEntry(name="stable", weight=95), TargetEntry(**canary)]
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"conext_tokens_max": 1}, ["'mine'", "unknown field `conext_tokens_max`"]),
        ({"targets": [{"wieght": 1}]}, ["'mine'", "targets[0]", "`wieght`"]),
        ({"targets": [{"weight": "1"}]}, ["'mine'", "targets[0].weight", "Expected `int`"]),
        ({"adapter": "triton"}, ["'mine'", "adapter", "Invalid enum value 'triton'"]),
        ({"parameters": "top_k"}, ["'mine'", "parameters", "Expected `array`"]),
        ({"name": 3}, ["models[1]", "name", "Expected `str`"]),
        ({"name": "sound"}, ["'sound'", "twice"]),
        ({"fallbacks": ["nobody"]}, ["'mine'", "fallbacks", "'nobody'"]),
        ({"name": "a/b"}, ["'a/b'", "name", "part of an address"]),
    ],
)
def test_a_wrong_entry_is_named_and_nothing_is_stored(catalog_file, change, words):
    message = refusal(catalog_file(SOUND | {"name": "sound"}, SOUND | change))
    for word in words:
        assert word in message
    assert not Model.objects.exists()


def test_a_field_that_is_missing_is_named(catalog_file):
    assert "`upstream`" in refusal(
        catalog_file({k: v for k, v in SOUND.items() if k != "upstream"})
    )


@pytest.mark.parametrize("content", [b"\xff\xfe", b"3", b'"text"', b"null", b'{"models": {}}'])
def test_a_file_of_another_kind_is_refused_in_words(tmp_path, content):
    path = tmp_path / "catalog.json"
    path.write_bytes(content)
    assert refusal(path)


def test_fallbacks_of_one_file_may_name_each_others_models_in_any_order(catalog_file):
    models = [SOUND | {"fallbacks": ["later"]}, SOUND | {"name": "later"}]
    assert sync_catalog(catalog_file(*models)) == 2


def test_a_circle_over_a_model_stored_before_is_refused(catalog_file):
    sync_catalog(catalog_file(SOUND | {"fallbacks": ["other"]}, SOUND | {"name": "other"}))
    message = refusal(catalog_file(SOUND | {"name": "other", "fallbacks": ["mine"]}))
    assert "other > mine > other" in message


def test_many_faults_are_shown_in_part_and_counted(catalog_file):
    models = [SOUND | {"name": f"m{n}", "fallbacks": ["nobody"]} for n in range(9)]
    assert refusal(catalog_file(*models)).endswith("and 4 more")


@pytest.mark.parametrize(
    "broken",
    [
        {"adapter": "triton"},
        {"upstream": "a/b"},
        {"upstream": "a/../b", "adapter": "openai"},
        {"secret_env": "lower"},
        {"idle_timeout_s": -1},
        {"targets": {}},
        {"parameters": "top_k"},
    ],
)
def test_postgresql_refuses_by_itself(broken):
    with pytest.raises(IntegrityError), transaction.atomic():
        Model.objects.create(**SOUND | broken)
