"""Every fault names its field and says what to do; what is sound has none."""

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from meterplane.catalog.check import faults_of
from meterplane.catalog.check_serving import OWN_VARIABLES
from meterplane.catalog.closed_parameters import why_closed
from meterplane.settings.env import Environment
from tests.catalog.entries import entry

OTHERS = {
    each.name: each
    for each in (
        entry("chat"),
        entry("llama", adapter="openai", upstream="meta-llama/Llama-3.1-8B-Instruct"),
        entry("vectors", adapter="embedding", output_tokens_max=0, output_tokens_default=0),
        entry("first", fallbacks=["second"]),
        entry("second", fallbacks=["mine"]),
    )
}


def found(**fields):
    mine = entry(**fields)
    return [(fault.field, fault.problem) for fault in faults_of(mine, OTHERS | {mine.name: mine})]


def target(**fields):
    return {"targets": [fields]}


FAULTS = [
    ({"upstream": "../secrets"}, "upstream", "use letters"),
    ({"upstream": "meta-llama/Llama"}, "upstream", "use letters"),
    ({"upstream": "a\n"}, "upstream", "use letters"),
    ({"upstream": "a//b", "adapter": "openai"}, "upstream", "'/' and ':'"),
    ({"upstream": "a/../b", "adapter": "openai"}, "upstream", "use letters"),
    ({"display_name": " "}, "display_name", "empty"),
    ({"display_name": "a\0b"}, "description", "NUL"),
    ({"context_tokens_max": -1}, "context_tokens_max", "state 0 to"),
    ({"context_tokens_max": 2**31}, "context_tokens_max", "state 0 to"),
    ({"output_tokens_default": 2000}, "output_tokens_default", "lower it"),
    (target(servers=["triton:8000"]), "targets[0].servers", "http:// or https://"),
    (target(servers=["ftp://triton"]), "targets[0].servers", "http:// or https://"),
    (target(servers=["http://"]), "targets[0].servers", "and a host"),
    (target(servers=["http://a:99999"]), "targets[0].servers", "not an address"),
    (target(servers=["http://[::1"]), "targets[0].servers", "not an address"),
    (target(servers=["http://a b"]), "targets[0].servers", "blanks"),
    (target(servers=["http://a/?x=1"]), "targets[0].servers", "base address alone"),
    (target(servers=["http://me:pw@a"]), "targets[0].servers", "secret_env instead"),
    (target(servers=["http://a", "http://a"]), "targets[0].servers", "twice"),
    (target(servers=[f"http://a{n}" for n in range(65)]), "targets[0].servers", "64 at most"),
    (target(grpc_servers=["http://a:8001"]), "targets[0].grpc_servers", "host:port"),
    (target(grpc_servers=["a"]), "targets[0].grpc_servers", "host:port"),
    (target(grpc_servers=["a:70000"]), "targets[0].grpc_servers", "host:port"),
    (target(name="a b"), "targets[0].name", "shown in usage"),
    (target(version="v3"), "targets[0].version", "as digits"),
    (target(version="0"), "targets[0].version", "as digits"),
    (target(region="eu\nwest"), "targets[0].region", "matched by prices"),
    (target(region=" "), "targets[0].region", "matched by prices"),
    (target(region="r" * 65), "targets[0].region", "up to 64 letters"),
    (target(gpu_type="H100\0"), "targets[0].gpu_type", "matched by prices"),
    (target(weight=-1), "targets[0].weight", "state 0"),
    (target(upstream="a/b"), "targets[0].upstream", "use letters"),
    (target(weight=0), "targets", "give one a weight"),
    ({"targets": [{"name": "a"}, {"name": "a"}]}, "targets[1].name", "each differently"),
    ({"targets": [{"name": f"t{n}"} for n in range(17)]}, "targets", "16 at most"),
    ({"adapter": "openai"} | target(version="3"), "targets[0].version", "name it in upstream"),
    ({"adapter": "openai"} | target(grpc_servers=["a:1"]), "targets[0].grpc_servers", "leave"),
    ({"fallbacks": ["nobody"]}, "fallbacks", "not in the catalog"),
    ({"fallbacks": ["vectors"]}, "fallbacks", "same kind"),
    ({"fallbacks": ["chat", "chat"]}, "fallbacks", "twice"),
    ({"fallbacks": ["mine"]}, "fallbacks", "mine > mine"),
    ({"fallbacks": ["first"]}, "fallbacks", "mine > first > second > mine"),
    ({"fallbacks": ["chat", "llama", "first", "second"]}, "fallbacks", "3 are asked at most"),
    ({"adapter": "tensor"}, "adapter", "'second'"),
    ({"chat_template": "{% if %}"}, "chat_template", "does not compile: line 1"),
    ({"chat_template": "a\n{{ x | nosuch }}"}, "chat_template", "line 2: No filter"),
    ({"chat_template": "{% break %}"}, "chat_template", "does not compile"),
    ({"chat_template": "a" * 65_537}, "chat_template", "shorten it"),
    ({"chat_template": "a", "adapter": "openai"}, "chat_template", "never rendered"),
    ({"tokenizer": "../etc"}, "tokenizer", "without '..'"),
    ({"tokenizer": "/etc"}, "tokenizer", "relative"),
    ({"parameters": ["top k"]}, "parameters", "correct it"),
    ({"parameters": ["top_k", "top_k"]}, "parameters", "twice"),
    ({"parameters": ["lora_path"]}, "parameters", "names a file"),
    ({"parameters": ["n"]}, "parameters", "belongs to the request"),
    ({"parameters": [f"p{n}" for n in range(65)]}, "parameters", "64 at most"),
    ({"inputs": ["a b"]}, "inputs", "tensor's name"),
    ({"outputs": [""]}, "outputs", "tensor's name"),
    ({"continuous_usage": True}, "continuous_usage", "leave it false"),
    (
        {
            "adapter": "embedding",
            "output_tokens_max": 0,
            "output_tokens_default": 0,
            "reserve": "history",
        },
        "reserve",
        "no text whose length",
    ),
    ({"secret_env": "sk-lower"}, "secret_env", "only the variable's name"),
    ({"secret_env": "API_KEY_PEPPER"}, "secret_env", "would receive it"),
    ({"first_byte_timeout_s": -1}, "first_byte_timeout_s", "600 seconds"),
    ({"idle_timeout_s": float("nan")}, "idle_timeout_s", "600 seconds"),
    ({"duration_s_max": 601}, "duration_s_max", "600 seconds"),
    ({"in_flight_max": -1}, "in_flight_max", "0 (no bound) to 16,384"),
    ({"queue_max": 16_385}, "queue_max", "0 (nobody waits) to 16,384"),
    ({"queue_s_max": float("nan")}, "queue_s_max", "0 (nobody waits) to 30"),
    ({"adapter": "tensor", "priority_levels": 17}, "priority_levels", "0 (none) to 16"),
    ({"adapter": "vllm", "priority_levels": 2}, "priority_levels", "vllm adapter does not send"),
]


@pytest.mark.parametrize(("fields", "field", "words"), FAULTS)
def test_a_fault_names_its_field_and_says_what_to_do(fields, field, words):
    faults = found(**fields)
    assert field in [each for each, _ in faults]
    assert any(words in problem for each, problem in faults if each == field)


SOUND = [
    {},
    {"reserve": "history"},
    {"fallbacks": ["chat", "llama"]},
    {"adapter": "openai", "upstream": "meta-llama/Llama-3.1-8B-Instruct", "continuous_usage": True},
    {"adapter": "openai", "upstream": "llama3.1:8b", "fallbacks": ["chat"]},
    target(servers=["https://a.example:8443/base/", "http://[::1]:8000"], version="12"),
    target(grpc_servers=["triton-a:8001", "[::1]:8001"]),
    target(region="eu-west-1", gpu_type="NVIDIA H100 80GB HBM3"),
    {"targets": [{"name": "stable", "weight": 99}, {"name": "canary"}, {"name": "c", "weight": 0}]},
    {"chat_template": "{% for m in messages %}{% if m %}{% break %}{% endif %}{% endfor %}"},
    {"chat_template": "{{ 9 ** 9 ** 9 ** 9 }}"},
    {"tokenizer": "meta-llama/Llama-3.1-8B-Instruct"},
    {"parameters": ["top_k", "min_p", "repetition_penalty", "guided_json"]},
    {"inputs": ["INPUT__0", "images:0"], "secret_env": "VLLM_API_KEY", "duration_s_max": 600},
    {"in_flight_max": 8, "queue_max": 0, "queue_s_max": 0.5},
]


@pytest.mark.parametrize("fields", SOUND)
def test_what_is_sound_has_no_fault(fields):
    assert found(**fields) == []


def test_a_template_a_tokenizer_ships_compiles():
    shipped = (
        "{%- if messages[0]['role'] == 'system' -%}{%- set rest = messages[1:] -%}{%- endif -%}\n"
        "{{- bos_token }}{%- for message in rest | default(messages) %}\n"
        "{%- if message.content is not string %}{{ raise_exception('text only') }}{%- endif %}\n"
        "{{- '<|im_start|>' + message['role'] + '\\n' + message.content | trim }}\n"
        "{%- endfor %}{%- if add_generation_prompt %}{{ '<|im_start|>assistant' }}{%- endif %}"
    )
    assert found(chat_template=shipped) == []
    assert ImmutableSandboxedEnvironment().from_string(shipped)


def test_a_pasted_key_is_not_repeated_in_the_fault():
    assert "sk-secret-1234" not in str(found(secret_env="sk-secret-1234"))


@pytest.mark.parametrize(
    "name",
    [
        "lora_path", "LoRA_Path", "image_url", "my_adapter_path", "video_uri", "proxy_host",
        "logits_processors", "custom_logit_processor", "prompt_embeds", "kv_transfer_params",
        "shared_memory_region", "triton_enable_empty_final_response", "num_return_sequences",
        "beam_width", "stream_options", "return_num_output_tokens", "model", "messages",
        "max_tokens", "chat_template", "sequence_id",
    ],
)  # fmt: skip
def test_no_model_can_open_a_field_that_is_closed(name):
    assert why_closed(name)


def test_every_secret_of_ours_is_closed_to_upstreams():
    """A variable the product starts to read as a secret must be added to the list."""
    secret = ("_key", "_secret", "_pepper")
    ours = {
        name.upper()
        for name in Environment.model_fields
        if name.endswith(secret)
        or (name.endswith("_url") and not name.startswith(("public_", "gateway_internal")))
    }
    assert ours <= OWN_VARIABLES
