"""Tokenizers: found when they are needed, counted with, and never a reason to fall over."""

import asyncio
import json

import pytest

from meterplane.contracts.serving import ModelServing, Target
from meterplane.gateway import tokenizers as module
from meterplane.gateway.prompts import Prompts
from meterplane.gateway.tokenizers import (
    COUNTED_IN_PLACE_CHARS_MAX,
    TEXT_CHARS_LEAST,
    InPlace,
    Tokenizers,
)
from tests.gateway.openai_doubles import make_tokenizer, words

TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}"
CHAT = [{"role": "user", "content": "one two"}]


def serving(name="words", **fields):
    return ModelServing(
        name="m", version=1, targets=[Target(upstream="m")], tokenizer=name, **fields
    )


async def held(folder, name="words"):
    tokenizers = Tokenizers(folder)
    await tokenizers.read(name)
    found = tokenizers.held(name)
    assert found is not None
    return found


async def test_a_tokenizer_is_read_once_it_is_asked_for(tmp_path):
    make_tokenizer(tmp_path / "org" / "words")
    tokenizers = Tokenizers(tmp_path)
    assert not tokenizers.known("org/words")
    await asyncio.gather(*(tokenizers.read("org/words") for _ in range(5)))
    assert tokenizers.known("org/words")
    found = tokenizers.held("org/words")
    assert found is not None
    assert found.count("one two never-seen") == 3


@pytest.mark.parametrize("directory", [None, "here"])
async def test_a_model_without_a_tokenizer_waits_for_none(tmp_path, directory):
    tokenizers = Tokenizers(tmp_path if directory else None)
    assert tokenizers.known("")
    assert tokenizers.held("") is None
    assert Tokenizers(None).known("anything")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"{}", b"[1]", b"\xff\xfe", b'{"model": 1}', b"[" * 100_000, None]
)
async def test_what_cannot_be_read_is_absent_and_looked_for_again_later(
    tmp_path, monkeypatch, content
):
    monkeypatch.setattr(module, "ABSENT_MEMORY_S", 0.05)
    folder = tmp_path / "words"
    if content is not None:
        folder.mkdir()
        (folder / "tokenizer.json").write_bytes(content)
    tokenizers = Tokenizers(tmp_path)
    await tokenizers.read("words")
    assert tokenizers.known("words")
    assert tokenizers.held("words") is None
    if content is not None:
        (folder / "tokenizer.json").unlink()
        folder.rmdir()
    make_tokenizer(folder)
    await asyncio.sleep(0.06)
    assert not tokenizers.known("words")
    await tokenizers.read("words")
    assert tokenizers.held("words") is not None


@pytest.mark.parametrize("config", ["{", "[]", '{"chat_template": 7, "bos_token": 7}', "null"])
async def test_a_broken_configuration_is_no_tokenizer_or_no_template(tmp_path, config):
    make_tokenizer(tmp_path / "words")
    (tmp_path / "words" / "tokenizer_config.json").write_text(config)
    tokenizers = Tokenizers(tmp_path)
    await tokenizers.read("words")
    found = tokenizers.held("words")
    assert found is None or (found.chat_template, found.special_tokens) == ("", {})


async def test_long_texts_are_counted_elsewhere_and_the_same(tmp_path, monkeypatch):
    make_tokenizer(tmp_path / "words", begins=True)
    found = await held(tmp_path)
    text = "one two " * COUNTED_IN_PLACE_CHARS_MAX
    assert await found.count_elsewhere([text, "one"]) == [words(text), 1]
    assert await found.count_elsewhere([text, "one"], special=True) == [words(text) + 1, 2]
    prompts = Prompts(tmp_path)
    await prompts.make_ready(serving())
    used = []
    real = asyncio.to_thread
    monkeypatch.setattr(asyncio, "to_thread", lambda *a, **k: used.append(a) or real(*a, **k))
    for said, threads in (("one", 0), (text, 1)):
        prompt = await prompts.counted(serving(), prompts.text(serving(), said))
        assert (prompt.tokens, len(used)) == (words(said) + 1, threads)


async def test_what_is_counted_at_once_is_bounded_for_a_request_and_not_for_a_text(tmp_path):
    make_tokenizer(tmp_path / "words")
    prompts = Prompts(tmp_path)
    await prompts.make_ready(serving())
    for text, fit in (("one " * 256, 4), ("one", COUNTED_IN_PLACE_CHARS_MAX // TEXT_CHARS_LEAST)):
        in_place = InPlace()
        written = [prompts.text(serving(), text, in_place) for _ in range(fit + 3)]
        assert [each.tokens for each in written] == [words(text)] * fit + [None] * 3
        counted = await prompts.all_counted(serving(), written)
        assert [each.tokens for each in counted] == [words(text)] * len(written)


async def test_a_tokenizer_that_would_cut_or_fill_texts_does_not(tmp_path):
    make_tokenizer(tmp_path / "words")
    path = tmp_path / "words" / "tokenizer.json"
    document = json.loads(path.read_text())
    document["truncation"] = {
        "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0,
    }  # fmt: skip
    document["padding"] = {
        "strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "<unk>",
    }  # fmt: skip
    path.write_text(json.dumps(document))
    found = await held(tmp_path)
    assert [found.count("one"), found.count("one two three four")] == [1, 4]


@pytest.mark.parametrize(
    ("config", "template"),
    [
        ({"chat_template": "x"}, "x"),
        ({"chat_template": [{"name": "tool_use", "template": "t"},
                            {"name": "default", "template": "d"}]}, "d"),
        ({"chat_template": [{"name": "tool_use", "template": "t"}, 7]}, ""),
        ({}, ""),
    ],
)  # fmt: skip
async def test_the_template_is_the_configurations_default(tmp_path, config, template):
    make_tokenizer(tmp_path / "words", bos_token="<s>", **config)
    assert (await held(tmp_path)).chat_template == template


async def test_a_template_in_a_file_of_its_own_stands_above(tmp_path):
    make_tokenizer(tmp_path / "words", chat_template="old", eos_token={"content": "</s>"})
    (tmp_path / "words" / "chat_template.jinja").write_text("néw")
    found = await held(tmp_path)
    assert (found.chat_template, found.special_tokens) == ("néw", {"eos_token": "</s>"})


async def test_a_chat_is_written_and_counted_by_the_models_own(tmp_path):
    make_tokenizer(tmp_path / "words", begins=True, chat_template=TEMPLATE, bos_token="<s>")
    prompts = Prompts(tmp_path)
    assert not prompts.ready(serving())
    await prompts.make_ready(serving())
    assert prompts.ready(serving())
    prompt = prompts.chat(serving(), CHAT)
    # The engine's tokenizer begins a prompt: twice would be another prompt than the model knows.
    assert (prompt.text, prompt.tokens) == ("user: one two ", 4)


async def test_a_prompt_keeps_its_beginning_where_the_tokenizer_adds_none(tmp_path):
    make_tokenizer(tmp_path / "words", chat_template=TEMPLATE, bos_token="<s>")
    prompts = Prompts(tmp_path)
    await prompts.make_ready(serving())
    assert prompts.chat(serving(), CHAT).text == "<s>user: one two "


async def test_the_catalogs_template_stands_above_the_tokenizers(tmp_path):
    make_tokenizer(tmp_path / "words", chat_template=TEMPLATE)
    prompts = Prompts(tmp_path)
    own = serving(chat_template="{{ messages[0].content }}")
    await prompts.make_ready(own)
    assert prompts.chat(own, CHAT).text == "one two"


async def test_developer_is_system_in_a_templates_words(tmp_path):
    prompts = Prompts(tmp_path)
    said = [{"role": "developer", "content": "x"}]
    assert prompts.chat(serving("", chat_template="{{ messages[0].role }}"), said).text == "system"
    assert said == [{"role": "developer", "content": "x"}]


async def test_a_long_prompt_is_admitted_uncounted_and_counted_before_it_is_sent(tmp_path):
    make_tokenizer(tmp_path / "words")
    prompts = Prompts(tmp_path)
    await prompts.make_ready(serving())
    long = "one " * COUNTED_IN_PLACE_CHARS_MAX
    prompt = prompts.text(serving(), long)
    assert prompt.tokens is None
    assert (await prompts.counted(serving(), prompt)).tokens == COUNTED_IN_PLACE_CHARS_MAX
    plain = prompts.text(serving(""), "one")
    assert (await prompts.counted(serving(""), plain)).tokens is None
