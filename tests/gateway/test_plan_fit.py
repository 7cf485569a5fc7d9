"""A request that named no bound is made to fit what is left, and its engine is told so. No I/O."""

import random
from uuid import UUID

import msgspec
import pytest

from meterplane.contracts.policy import KeyPolicy, Limit, ModelPolicy, UnitPrices
from meterplane.contracts.serving import ModelServing, Target
from meterplane.gateway.adapters.engine import Engine
from meterplane.gateway.adapters.llmapi import LlmApi
from meterplane.gateway.adapters.tensorrtllm import TensorRtLlm
from meterplane.gateway.adapters.text import asks_for
from meterplane.gateway.adapters.vllm import Vllm
from meterplane.gateway.callers import Caller
from meterplane.gateway.fit import FIT_TOKENS_MIN, sole_stop
from meterplane.gateway.offers import Plan
from meterplane.gateway.prompts import Prompts
from meterplane.gateway.servings import Servings
from meterplane.gateway.surfaces import (
    kserve_generate,
    kserve_infer,
    openai_chat,
    openai_completions,
    openai_embeddings,
)
from meterplane.kernel.errors import CallerError
from tests.gateway.recording import byte_tokenizer

NOBODY = UUID(int=0)
IN_PICO, OUT_PICO, REQUEST_PICO = 150_000, 600_000, 1_000
DEFAULT, MOST = 256, 1024
TOKENS_IN = len("user: x\nassistant:") + 8  # of CHAT, on an engine nobody has a tokenizer of
CHAT = {"model": "vllm", "messages": [{"role": "user", "content": "x"}]}
ENGINES: dict[str, Engine] = {"vllm": Vllm(), "tensorrtllm": TensorRtLlm(), "llmapi": LlmApi()}


def model(name, adapter="vllm", *, dear=1, **fields):
    prices = UnitPrices(
        input_token_pico=dear * IN_PICO,
        output_token_pico=dear * OUT_PICO,
        request_pico=REQUEST_PICO,
    )
    bounds = {
        "context_tokens_max": 4096,
        "output_tokens_max": MOST,
        "output_tokens_default": DEFAULT,
    }
    return ModelPolicy(
        **{"name": name, "upstream": name, "adapter": adapter, "prices": prices} | bounds | fields
    )


def policy(*models, limits=(), **fields):
    return KeyPolicy(
        version=1, key_id=NOBODY, tenant_id=NOBODY, project_id=NOBODY, status="active",
        status_reason="", expires_at_ms=None, currency="USD", price_version_id=NOBODY,
        models={each.name: each for each in models}, limits=list(limits), **fields,
    )  # fmt: skip


def tokens(kind, amount, **fields):
    told = {"level": "organisation", "scope_id": NOBODY, "kind": kind, "window": "minute"}
    return Limit(**told | {"amount": amount} | fields)


def plan(work, fallbacks=(), **told):
    servings = Servings(None)
    targets = [Target(upstream="up")]
    serving = ModelServing(
        name=work.model, version=1, targets=targets, fallbacks=list(fallbacks), **told
    )
    servings._held[work.model, 1] = serving
    prompts = Prompts()
    prompts.tokenizers._held["bytes"] = byte_tokenizer()
    return Plan(work, Caller(b""), servings, lambda _: set(ENGINES) | {"openai", "tensor"}, prompts)


def chat(**fields):
    return openai_chat.parse(msgspec.json.encode(CHAT | fields))


def cost_nano(tokens_in, tokens_out, dear=1):
    return -(-(dear * (tokens_in * IN_PICO + tokens_out * OUT_PICO) + REQUEST_PICO) // 1000)


def told_to_engine(made):
    """What the engine asked for is told to stop at, each of its answers."""
    offer, work = made.offers[0], made.work
    engine = ENGINES[offer.model.adapter]
    asks = asks_for(work, offer, work.prompts(offer), engine)
    return {ask.tokens_out_max for _, ask in asks}


def test_a_request_without_a_bound_is_given_what_is_left_and_its_engine_is_told():
    made, under = plan(chat()), policy(model("vllm"))
    assert made.cost_nano(under) == cost_nano(TOKENS_IN, DEFAULT)
    assert made.header() == b"", "the model's own bound is told by the model"
    room_nano = cost_nano(TOKENS_IN, 40)
    assert made.fit(under, room_nano) == room_nano
    assert made.cost_nano(under) == room_nano, "asked again, it is the same reservation"
    assert told_to_engine(made) == {40}
    assert made.header() == b"x-meterplane-output-tokens-max: 40\r\n"
    assert sole_stop(made.bounds[0]) == 40


@pytest.mark.parametrize("named", ["max_tokens", "max_completion_tokens"])
def test_a_bound_the_caller_named_is_never_lowered(named):
    made, under = plan(chat(**{named: 200})), policy(model("vllm"))
    whole_nano = cost_nano(TOKENS_IN, 200)
    assert made.cost_nano(under) == whole_nano
    assert made.fit(under, whole_nano - 1) is None
    assert made.fit(under, whole_nano) == whole_nano
    assert told_to_engine(made) == {200}
    assert made.header() == b""
    assert sole_stop(made.bounds[0]) == 0


def test_no_answer_is_shorter_than_the_least_that_is_worth_its_input():
    made, under = plan(chat()), policy(model("vllm"))
    least_nano = cost_nano(TOKENS_IN, FIT_TOKENS_MIN)
    assert made.fit(under, least_nano - 1) is None
    assert made.cost_nano(under) == cost_nano(TOKENS_IN, DEFAULT), "what cannot fit is as it was"
    assert made.fit(under, least_nano) == least_nano
    assert made.fit(under, -5) is None
    short = policy(model("vllm", output_tokens_default=8))
    assert made.fit(short, cost_nano(TOKENS_IN, 8)) == cost_nano(TOKENS_IN, 8)


def test_what_is_left_is_shared_by_every_choice_of_every_prompt():
    body = {"model": "vllm", "prompt": ["ab", "cd", "ef"], "n": 2}
    made = plan(openai_completions.parse(msgspec.json.encode(body)))
    under, tokens_in = policy(model("vllm")), 3 * (2 + 8)
    assert made.cost_nano(under) == cost_nano(tokens_in, 6 * DEFAULT)
    assert made.fit(under, cost_nano(tokens_in, 6 * 20 + 5)) == cost_nano(tokens_in, 6 * 20)
    assert told_to_engine(made) == {20}
    assert made.header().endswith(b" 20\r\n")
    assert sole_stop(made.bounds[0]) == 0
    assert made.fit(under, cost_nano(tokens_in, 6 * FIT_TOKENS_MIN - 1)) is None


def test_a_fallback_that_is_too_dear_is_left_out_before_the_answer_is_shortened():
    made = plan(chat(), fallbacks=["dear", "cheap"])
    made._servings._held["dear", 1] = made._servings._held["vllm", 1]
    under = policy(model("vllm", serving_version=1), model("dear", dear=4), model("cheap"))
    assert made.cost_nano(under) == cost_nano(TOKENS_IN, DEFAULT, dear=4)
    own_nano = cost_nano(TOKENS_IN, DEFAULT)
    assert made.fit(under, own_nano) == own_nano
    assert [offer.model.name for offer in made.offers] == ["vllm", "cheap"]
    assert told_to_engine(made) == {DEFAULT}
    assert made.header() == b""
    room_nano = cost_nano(TOKENS_IN, 40)
    assert made.fit(under, room_nano) == room_nano
    assert [offer.output_tokens(None) for offer in made.offers] == [40, 40]
    assert [bounds.tokens_out_max for bounds in made.bounds] == [40, 40]


def test_a_named_bound_fits_where_only_a_fallback_is_too_dear():
    made = plan(chat(max_tokens=100), fallbacks=["dear"])
    under = policy(model("vllm", serving_version=1), model("dear", dear=4))
    own_nano = cost_nano(TOKENS_IN, 100)
    assert made.cost_nano(under) > own_nano
    assert made.fit(under, own_nano) == own_nano
    assert [offer.model.name for offer in made.offers] == ["vllm"]


def test_fitting_again_lowers_it_again_and_another_policy_starts_anew():
    made, under = plan(chat()), policy(model("vllm"))
    assert made.fit(under, cost_nano(TOKENS_IN, 100)) == cost_nano(TOKENS_IN, 100)
    assert made.fit(under, cost_nano(TOKENS_IN, 90)) == cost_nano(TOKENS_IN, 90)
    assert made.fit(under, cost_nano(TOKENS_IN, 500)) == cost_nano(TOKENS_IN, 90)
    assert told_to_engine(made) == {90}
    other = policy(model("vllm", dear=2))
    assert made.cost_nano(other) == cost_nano(TOKENS_IN, DEFAULT, dear=2)
    assert told_to_engine(made) == {DEFAULT}
    assert made.header() == b""


@pytest.mark.parametrize("adapter", list(ENGINES))
def test_every_engine_is_told_the_bound(adapter):
    told = {"tokenizer": "bytes"} if adapter == "llmapi" else {}
    made = plan(chat(), **told)
    under = policy(model("vllm", adapter, serving_version=1))
    assert made.fit(under, cost_nano(60, 40)) is not None
    (bound,) = told_to_engine(made)
    assert FIT_TOKENS_MIN <= bound < DEFAULT
    assert made.bounds[0].tokens_out_max == bound


GENERATE = {
    "vllm": ("sampling_parameters", '{"max_tokens": 50}', '{"min_tokens": 50}', '{"n": 2}'),
    "tensorrtllm": ("max_tokens", 50, None, None),
    "llmapi": ("sampling_param_max_tokens", 50, None, None),
}


@pytest.mark.parametrize("adapter", list(ENGINES))
def test_the_generate_protocol_is_fitted_in_the_engines_own_words(adapter):
    field, named, *_ = GENERATE[adapter]

    def asked(**fields):
        body = msgspec.json.encode({"text_input": "hello"} | fields)
        told = {"tokenizer": "bytes", "parameters": ["min_tokens"]}
        return plan(kserve_generate.parse("m", "", body, stream=True), **told)

    under, tokens_in = policy(model("m", adapter, serving_version=1)), len("hello") + 2
    made = asked()
    room_nano = cost_nano(tokens_in, 33)
    assert made.fit(under, room_nano) == room_nano
    sent = msgspec.json.decode(made.work.upstream_body(made.offers[0]))
    told = sent[field]
    assert (msgspec.json.decode(told)["max_tokens"] if adapter == "vllm" else told) == 33
    bounded = asked(**{field: named})
    assert bounded.cost_nano(under) == cost_nano(tokens_in, 50)
    assert bounded.fit(under, cost_nano(tokens_in, 49)) is None


def test_who_says_how_long_an_answer_is_at_least_has_the_models_own_bound():
    under = policy(model("m", output_tokens_reserved=40))
    for least in ({"min_tokens": 60}, {"min_tokens": 60, "n": 2}):
        body = {"text_input": "hello", "sampling_parameters": msgspec.json.encode(least).decode()}
        work = kserve_generate.parse("m", "", msgspec.json.encode(body), stream=True)
        made = plan(work)
        made.cost_nano(under)
        assert made.bounds[0].tokens_out_max == DEFAULT * least.get("n", 1)
        assert made.fit(under, cost_nano(7, DEFAULT * least.get("n", 1) - 1)) is None
    listed = plan(chat(min_tokens=60), parameters=["min_tokens"])
    under = policy(model("vllm", output_tokens_reserved=40, serving_version=1))
    assert listed.cost_nano(under) == cost_nano(TOKENS_IN, DEFAULT)
    assert listed.fit(under, cost_nano(TOKENS_IN, DEFAULT) - 1) is None


def test_what_has_no_output_tokens_is_not_fitted():
    infer = {"inputs": [{"name": "a", "shape": [1], "datatype": "FP32", "data": [1]}]}
    tensor = kserve_infer.parse("m", "", msgspec.json.encode(infer), None)
    embedding = openai_embeddings.parse(b'{"model": "m", "input": "hello"}')
    for work, adapter in ((tensor, "tensor"), (embedding, "openai")):
        made, under = plan(work), policy(model("m", adapter))
        whole_nano = made.cost_nano(under)
        assert whole_nano > 0
        assert made.fit(under, whole_nano - 1) is None
        assert made.header() == b""


def test_output_that_costs_nothing_cannot_be_lowered():
    prices = UnitPrices(input_token_pico=IN_PICO, output_token_pico=0, request_pico=0)
    made, under = plan(chat()), policy(model("vllm", prices=prices))
    assert made.fit(under, made.cost_nano(under) - 1) is None


def test_history_is_the_bound_of_who_named_none_and_of_nobody_else():
    under = policy(model("vllm", output_tokens_reserved=48))
    made = plan(chat())
    assert made.cost_nano(under) == cost_nano(TOKENS_IN, 48)
    assert told_to_engine(made) == {48}
    assert made.header() == b"x-meterplane-output-tokens-max: 48\r\n"
    assert made.fit(under, cost_nano(TOKENS_IN, 20)) == cost_nano(TOKENS_IN, 20)
    named = plan(chat(max_tokens=500))
    assert named.cost_nano(under) == cost_nano(TOKENS_IN, 500)
    assert named.header() == b""
    clamped = plan(chat())
    clamped.cost_nano(policy(model("vllm", output_tokens_reserved=9999)))
    assert told_to_engine(clamped) == {MOST}


def test_one_request_has_no_more_tokens_than_its_key_may():
    under = policy(model("vllm"), request_tokens_max=TOKENS_IN + 100)
    open_ended = plan(chat())
    assert open_ended.cost_nano(under) == cost_nano(TOKENS_IN, 100)
    assert told_to_engine(open_ended) == {100}
    assert open_ended.header() == b"x-meterplane-output-tokens-max: 100\r\n"
    fits = plan(chat(max_tokens=100))
    assert fits.cost_nano(under) == cost_nano(TOKENS_IN, 100)
    with pytest.raises(CallerError, match="ask for at most 100 in all") as refused:
        plan(chat(max_tokens=101)).cost_nano(under)
    assert (refused.value.status, refused.value.field) == (400, "max_tokens")
    shared = plan(chat(n=3))
    assert shared.cost_nano(under) == cost_nano(TOKENS_IN, 99)
    assert told_to_engine(shared) == {33}


def test_an_input_above_what_one_request_may_have_is_refused_whatever_it_asks():
    for tokens_max in (TOKENS_IN - 1, TOKENS_IN):
        under = policy(model("vllm"), request_tokens_max=tokens_max)
        for work in (chat(), chat(max_tokens=1)):
            with pytest.raises(CallerError) as refused:
                plan(work).cost_nano(under)
            assert (refused.value.status, refused.value.code) == (400, "request_too_large")
    embedding = openai_embeddings.parse(b'{"model": "m", "input": "hello"}')
    for tokens_max, allowed in ((1, False), (1000, True)):
        under = policy(model("m", "openai"), request_tokens_max=tokens_max)
        if allowed:
            plan(embedding).cost_nano(under)
        else:
            with pytest.raises(CallerError, match="shorten it"):
                plan(embedding).cost_nano(under)


@pytest.mark.parametrize(
    ("limits", "bound"),
    [
        ([tokens("output_tokens", 100)], 100),
        ([tokens("output_tokens", 100, window="day"), tokens("total_tokens", 1000)], 100),
        ([tokens("total_tokens", TOKENS_IN + 90)], 90),
        ([tokens("output_tokens", 1000, burst=70)], 70),
        ([tokens("output_tokens", 5, raised_to=80, raised_until_ms=2**52)], 80),
        ([tokens("output_tokens", 50, level="key_model", model="vllm")], 50),
        ([tokens("output_tokens", 50, level="key_model", model="other")], DEFAULT),
        ([tokens("output_tokens", 50, mode="notify")], DEFAULT),
        ([tokens("input_tokens", 1), tokens("requests", 1)], DEFAULT),
        ([tokens("total_tokens", TOKENS_IN)], DEFAULT),  # admission's to refuse
        ([tokens("output_tokens", 0)], DEFAULT),  # as above
    ],
)
def test_an_open_request_asks_for_no_more_than_a_limit_ever_lets_through_at_once(limits, bound):
    made, under = plan(chat()), policy(model("vllm"), limits=limits)
    assert made.cost_nano(under) == cost_nano(TOKENS_IN, bound)
    assert told_to_engine(made) == {bound}
    assert bool(made.header()) == (bound != DEFAULT)
    named = plan(chat(max_tokens=DEFAULT))
    assert named.cost_nano(under) == cost_nano(TOKENS_IN, DEFAULT)


def test_whether_it_would_fit_is_told_without_a_change():
    made, under = plan(chat()), policy(model("vllm"))
    whole_nano = made.cost_nano(under)
    assert made.fits(under, whole_nano)
    assert made.fits(under, cost_nano(TOKENS_IN, FIT_TOKENS_MIN))
    assert not made.fits(under, cost_nano(TOKENS_IN, FIT_TOKENS_MIN) - 1)
    assert made.cost_nano(under) == whole_nano
    named = plan(chat(max_tokens=DEFAULT))
    assert not named.fits(under, whole_nano - 1)
    assert named.fits(under, whole_nano)


def test_tensors_have_no_tokens_to_bound():
    infer = {"inputs": [{"name": "a", "shape": [1], "datatype": "FP32", "data": [1]}]}
    work = kserve_infer.parse("m", "", msgspec.json.encode(infer), None)
    assert plan(work).cost_nano(policy(model("m", "tensor"), request_tokens_max=1)) > 0


def test_a_refusal_leaves_nothing_of_an_older_policy_behind():
    made, under = plan(chat()), policy(model("vllm"))
    made.cost_nano(under)
    with pytest.raises(CallerError):
        made.cost_nano(policy(model("vllm"), request_tokens_max=1))
    assert made.cost_nano(under) == cost_nano(TOKENS_IN, DEFAULT)
    assert len(made.offers) == len(made.bounds) == 1


def test_random_requests_never_hold_more_than_there_is_room_and_use_all_of_it():
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    for _ in range(500):
        prices = UnitPrices(
            input_token_pico=draw.randrange(1, 10**6),
            output_token_pico=draw.randrange(1, 10**6),
            request_pico=draw.randrange(10**6),
        )
        choices = draw.randrange(1, 9)
        made, under = plan(chat(n=choices)), policy(model("vllm", prices=prices))
        whole_nano = made.cost_nano(under)
        room_nano = draw.randrange(whole_nano + 10)
        fitted_nano = made.fit(under, room_nano)
        bounds = made.bounds[0]
        if fitted_nano is None:
            least = msgspec.structs.replace(bounds, tokens_out_max=FIT_TOKENS_MIN * choices)
            assert made.offers[0].cost_nano_max(least) > room_nano - 1
            assert made.cost_nano(under) == whole_nano
            continue
        assert fitted_nano <= room_nano
        assert bounds.tokens_out_max >= FIT_TOKENS_MIN * choices
        more = msgspec.structs.replace(bounds, tokens_out_max=bounds.tokens_out_max + choices)
        assert fitted_nano == whole_nano or made.offers[0].cost_nano_max(more) > room_nano - 1
