"""An operator changes how a model is reached; the gateways are told in the same transaction."""

import json
import re
from html import unescape
from pathlib import Path

import msgspec
import pytest
from django.urls import reverse

from billing.pricing.catalog_prices import publish_catalog_prices
from meterplane.catalog.models import Model
from meterplane.catalog.sync import sync_catalog
from meterplane.contracts import policy as policy_contract
from meterplane.contracts import serving as contract
from meterplane.metering.ingest import ingest_segment
from meterplane.policy.compile import recompile_everyone
from meterplane.policy.learn import learn_reservations
from meterplane.policy.models import GatewayModel, GatewayPolicy
from tenants.scoping import tenant_scope
from tests.metering.segments import message, settle

CATALOG = Path(__file__).resolve().parents[2] / "infra" / "triton" / "catalog.json"
LISTS = ("targets", "fallbacks", "parameters", "inputs", "outputs")
SWITCHES = ("is_active", "is_demo", "bill_errors", "continuous_usage")
TARGETS = [
    {"name": "stable", "weight": 95},
    {"name": "canary", "weight": 5, "version": "2", "servers": ["http://triton-b:8000"]},
]


@pytest.fixture
def selling(organisation):
    """The catalog on sale to one tenant."""
    sync_catalog(CATALOG)
    publish_catalog_prices(CATALOG)
    recompile_everyone()
    return organisation


def page_of(name: str) -> str:
    return reverse("console:catalog_model_change", args=[Model.objects.get(name=name).pk])


def form_of(name: str, **changed: object) -> dict[str, object]:
    """What the page would send, with some fields changed; a switch that is off is not sent."""
    row = Model.objects.get(name=name)
    fields = (
        "display_name", "description", "adapter", "upstream", "secret_env", "chat_template",
        "tokenizer", "context_tokens_max", "output_tokens_max", "output_tokens_default", "reserve",
        "first_byte_timeout_s", "idle_timeout_s", "duration_s_max",
        "in_flight_max", "queue_max", "queue_s_max", "priority_levels",
    )  # fmt: skip
    form: dict[str, object] = {field: getattr(row, field) for field in fields}
    form |= {field: json.dumps(getattr(row, field)) for field in LISTS}
    form |= {switch: "on" for switch in SWITCHES if getattr(row, switch)}
    return {k: v for k, v in (form | changed).items() if v is not None}


def told(tenant, name: str) -> tuple[policy_contract.KeyPolicy, contract.ModelServing]:
    """What a gateway reads: the key's policy, and the serving it names."""
    with tenant_scope(tenant.id):
        row = GatewayPolicy.objects.get(key_id=tenant.key_id)
    policy = policy_contract.decode(msgspec.json.encode(row.document))
    serving = GatewayModel.objects.get(name=name, version=policy.models[name].serving_version)
    return policy, contract.decode(msgspec.json.encode(serving.document))


def faults(answer) -> str:
    """The page that came back instead of a redirect, as text without tags."""
    assert answer.status_code == 200
    return unescape(re.sub(r"<[^>]+>", " ", answer.text))


def test_a_saved_form_is_in_force_for_every_key(operator, selling):
    before, _ = told(selling, "tiny-lm")
    form = form_of("tiny-lm", targets=json.dumps(TARGETS), idle_timeout_s="2.5", bill_errors="on")
    assert operator.post(page_of("tiny-lm"), form).status_code == 302
    policy, serving = told(selling, "tiny-lm")
    assert policy.version > before.version
    assert [(each.name, each.weight) for each in serving.targets] == [("stable", 95), ("canary", 5)]
    assert serving.targets[1].servers == ["http://triton-b:8000"]
    assert serving.targets[0].upstream == "tiny-lm"
    assert serving.idle_timeout_s == 2.5
    assert serving.bill_errors
    history = reverse("console:catalog_model_history", args=[Model.objects.get(name="tiny-lm").pk])
    assert "Targets" in operator.get(history).text


def test_saving_without_a_change_tells_the_gateways_nothing(operator, selling):
    before = told(selling, "tiny-lm")
    assert operator.post(page_of("tiny-lm"), form_of("tiny-lm")).status_code == 302
    assert told(selling, "tiny-lm") == before


def test_a_model_switched_off_leaves_the_policies(operator, selling):
    form = form_of("identity", is_active=None)
    assert operator.post(page_of("identity"), form).status_code == 302
    policy, _ = told(selling, "tiny-lm")
    assert "identity" not in policy.models


def test_a_template_is_kept_to_the_character(operator, selling):
    typed = "\r\n{% for m in messages %}\r\n{{ m.content }}\r\n{% endfor %}\r\n"
    assert (
        operator.post(page_of("tiny-lm"), form_of("tiny-lm", chat_template=typed)).status_code
        == 302
    )
    _, serving = told(selling, "tiny-lm")
    assert serving.chat_template == typed.replace("\r\n", "\n")


FAULTS = [
    ("targets", '[{"name": "a",}]', "This is not JSON: line 1, column"),
    ("targets", "{}", "Write a list"),
    ("targets", "[" * 100_000, "This is not JSON: it is nested too deeply"),
    ("targets", '[{"\\ud800": 5}]', "escapes half of a character"),
    ("targets", '[{"name": "\\ud800"}]', "escapes half of a character"),
    ("targets", f'[{{"weight": {"9" * 5000}}}]', "This is not JSON"),
    ("targets", f'[{{"weight": {"9" * 400}}}]', "targets[0].weight"),
    ("targets", '[{"wieght": 5}]', "targets[0]: Object contains unknown field `wieght`"),
    ("targets", '[{"weight": "5"}]', "targets[0].weight: Expected `int`, got `str`"),
    ("targets", '[{"servers": ["triton"]}]', "targets[0].servers 'triton' needs http://"),
    ("targets", '[{"weight": 0}]', "all have weight 0"),
    ("fallbacks", '["nobody"]', "'nobody' is not in the catalog"),
    ("fallbacks", '["identity"]', "'identity' is a model for tensor, this one is for text"),
    ("fallbacks", "[3]", "fallbacks[0]: Expected `str`"),
    ("parameters", '["lora_path"]', "may never hold 'lora_path': it names a file"),
    ("chat_template", "{% if %}", "does not compile: line 1"),
    ("upstream", "a/b", "is no name of a model on such a server"),
    ("secret_env", "lower", "is not the name of an environment variable"),
    ("duration_s_max", "601", "state 0 (the gateway's own) to 600 seconds"),
    ("output_tokens_default", "9999", "above output_tokens_max"),
    ("adapter", "triton", "Select a valid choice"),
    ("context_tokens_max", "-1", "greater than or equal to 0"),
]


def test_a_fault_is_said_in_words_and_nothing_is_stored(operator, selling):
    for field, typed, said in FAULTS:
        before = told(selling, "tiny-lm")
        answer = operator.post(page_of("tiny-lm"), form_of("tiny-lm", **{field: typed}))
        assert said in faults(answer), typed[:80]
        assert "Constraint" not in faults(answer)  # Django's own words for what PostgreSQL holds
        assert told(selling, "tiny-lm") == before


def test_what_was_typed_comes_back_with_its_fault(operator, selling):
    answer = operator.post(page_of("tiny-lm"), form_of("tiny-lm", targets='[{"name": "mine",}]'))
    assert '[{"name": "mine",}]' in faults(answer)


def test_the_name_of_a_model_is_for_ever(operator, selling):
    form = form_of("tiny-lm") | {"name": "other"}
    assert operator.post(page_of("tiny-lm"), form).status_code == 302
    assert not Model.objects.filter(name="other").exists()


def test_the_list_shows_how_each_model_is_reached(operator, selling):
    Model.objects.filter(name="tiny-lm").update(targets=TARGETS, fallbacks=["spare-lm"])
    page = operator.get(reverse("console:catalog_model_changelist")).text
    for shown in ("Triton: vLLM backend", "stable 95/100, canary 5/100", "spare-lm", "default"):
        assert shown in page
    opened = unescape(operator.get(page_of("tiny-lm")).text)
    for shown in ("How it is reached", "How it is read", "Limits", '"version": "2"'):
        assert shown in opened


def test_a_customer_cannot_change_a_model(client, selling):
    client.force_login(selling.owner, backend="django.contrib.auth.backends.ModelBackend")
    answer = client.post(page_of("tiny-lm"), form_of("tiny-lm", tokenizer="mine"))
    assert answer.status_code in (302, 403)
    assert Model.objects.get(name="tiny-lm").tokenizer == ""


def test_the_page_says_what_requests_held_and_what_history_knows(operator, selling):
    empty = faults(operator.get(page_of("tiny-lm")))
    assert "No requests in the last seven days." in empty
    assert "Nothing yet: history is read once an hour." in empty
    frames = [
        settle(selling, tokens_out=60, tokens_out_stop=256, cost_nano=10_000, reserved_nano=over)
        for over in [30_000] * 190 + [110_000] * 20
    ]
    ingest_segment(message(frames))
    learn_reservations()
    page = faults(operator.get(page_of("tiny-lm")))
    assert "210 requests up to" in page
    assert "$0.00002761905 a request on average" not in page, "nano is the smallest there is"
    assert "$0.000027619 a request on average" in page
    assert "half of them at most $0.00002, 95 % at most $0.0001." in page
    assert "Held in all: 3.76 times what they cost." in page
    assert "99 % need at most 64 tokens, by 210 answers" in page
    listed = operator.get(reverse("console:catalog_model_changelist")).text
    assert "$0.000027619" in listed


def test_history_is_chosen_in_the_form_and_in_force_at_once(operator, selling):
    frames = [settle(selling, tokens_out=60, tokens_out_stop=256) for _ in range(200)]
    ingest_segment(message(frames))
    learn_reservations()
    form = form_of("tiny-lm", reserve="history")
    assert operator.post(page_of("tiny-lm"), form).status_code == 302
    policy, _ = told(selling, "tiny-lm")
    assert policy.models["tiny-lm"].output_tokens_reserved == 64
    refused = operator.post(page_of("identity"), form_of("identity", reserve="history"))
    assert "writes no text whose length could be learned" in faults(refused)
