"""Chat templates: what published ones need, and that none can reach out, run on, or fill memory."""

import time
import tracemalloc

import pytest

from meterplane.gateway.templates import TEMPLATES_HELD_MAX, Templates
from meterplane.kernel.errors import CallerError, WorldError

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "  Hi, 'you' <b> & \"she\"\n"},
]
# In the manner of published templates; the turns and marks are each family's own.
LLAMA = (
    "{{- bos_token }}\n"
    "{%- if messages[0]['role'] == 'system' %}\n"
    "    {%- set system_message = messages[0]['content']|trim %}\n"
    "    {%- set messages = messages[1:] %}\n"
    "{%- else %}\n"
    '    {%- set system_message = "" %}\n'
    "{%- endif %}\n"
    '{{- "<|system|>" + system_message + strftime_now("%Y")[:2] }}\n'
    "{%- for message in messages %}\n"
    "    {{- '<|' + message['role'] + '|>' + message['content'] | trim + '<|eot|>' }}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n"
    "    {{- '<|assistant|>' }}\n"
    "{%- endif %}\n"
)
MISTRAL = (
    "{%- if messages[0].role == 'system' %}{% set system = messages[0].content %}"
    "{% set loop_messages = messages[1:] %}"
    "{% else %}{% set loop_messages = messages %}{% endif %}"
    "{%- for message in loop_messages %}"
    "{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{- raise_exception('roles must alternate') }}{% endif %}"
    "{%- if message.role == 'user' %}"
    "{{- '[INST] ' ~ (system ~ '\\n\\n' if loop.last and system is defined else '')"
    " ~ message.content ~ '[/INST]' }}"
    "{%- else %}{{- ' ' + message.content|trim + eos_token }}{% endif %}"
    "{%- endfor %}"
)
QWEN = (
    "{%- macro turn(message) %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endmacro %}"
    "{%- set ns = namespace(count=0, last=none) %}"
    "{%- for message in messages %}"
    "{%- set ns.count = ns.count + 1 %}"
    "{%- if message.role == 'skip' %}{% continue %}{% endif %}"
    "{%- if ns.count > 9 %}{% break %}{% endif %}"
    "{%- generation %}{{ turn(message) }}{% endgeneration %}"
    "{%- endfor %}"
    "{{- messages|selectattr('role', 'equalto', 'user')|map(attribute='role')|join(',') }}"
    "{{- messages[0]|tojson(indent=2)|length }} {{ messages|length }}"
    "{{- messages[::-1]|first|tojson }}"
    "{{- 'a</think>b'.split('</think>')[-1].lstrip('\\n') }}"
    "{{- '%s=%02d'|format('n', ns.count) }} {{ 'x'|upper|replace('X', 'yy') }} {{ '-' * 3 }}"
    " {{ 2.345|round(1) }}"
)


def render(source, messages=CHAT, templates=None):
    templates = templates or Templates()
    return templates.render(("m", 1, False), source, messages, {"bos_token": "<s>"})


@pytest.mark.parametrize(
    ("source", "written"),
    [
        (
            LLAMA,
            "<s><|system|>Be brief.20<|user|>Hi, 'you' <b> & \"she\"<|eot|><|assistant|>",
        ),
        (MISTRAL, "[INST] Be brief.\n\n  Hi, 'you' <b> & \"she\"\n[/INST]"),
        (
            QWEN,
            "<|im_start|>system\nBe brief.<|im_end|>\n"
            "<|im_start|>user\n  Hi, 'you' <b> & \"she\"\n<|im_end|>\n"
            'user48 2{"role": "user", "content": "  Hi, \'you\' <b> & \\"she\\"\\n"}'
            "bn=02 yy --- 2.3",
        ),
    ],
    ids=["llama", "mistral", "qwen"],
)
def test_published_templates_write_what_their_authors_meant(source, written):
    assert render(source) == written


def test_what_a_caller_says_is_text_and_never_a_template():
    hostile = "{{ 7 * 7 }}{% for i in range(9) %}x{% endfor %}{{ messages.__class__ }}"
    said = [{"role": "user", "content": hostile}]
    assert render("{{ messages[0].content }}", said) == hostile


def test_what_the_template_refuses_is_the_callers_to_correct():
    wrong = [{"role": "assistant", "content": "x"}]
    with pytest.raises(CallerError) as refused:
        render(MISTRAL, wrong)
    assert (refused.value.status, refused.value.field) == (400, "messages")
    assert "roles must alternate" in refused.value.message


def broken(source, messages=CHAT):
    with pytest.raises(WorldError) as refused:
        render(source, messages)
    assert (refused.value.status, refused.value.code) == (503, "chat_template_broken")
    assert "operator" in refused.value.message
    return refused.value.message


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__ }}",
        "{{ messages['__class__'].x }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages|attr('__class__') }}",
        "{{ (messages|attr('__cla' ~ 'ss__')).x }}",
        "{{ [messages]|map(attribute='__class__')|first }}",
        "{{ [messages]|map('attr', '__class__')|first }}",
        "{{ raise_exception.__globals__ }}",
        "{{ strftime_now.__globals__['json'] }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ self.__init__ }}",
        "{{ self._TemplateReference__context.environment }}",
        "{{ loop.x.y }}",
        "{% for m in messages %}{{ loop.__init__.__globals__ }}{% endfor %}",
        "{% macro f() %}{% endmacro %}{{ f.__call__.__globals__ }}",
        "{{ 'x{0.__class__}'.format(1) }}",
        "{{ 'x{0.__class__}'.format_map({'0': 1}) }}",
        "{% set f = 'x'.format %}{{ f(1) }}",
        "{{ 'x'.encode() }}",
        "{{ (1).to_bytes(1, 'big') }}",
        "{{ range(3).__reversed__() }}",
        "{{ messages.append(1) }}",
        "{{ messages.clear() }}",
        "{{ messages[0].update({'content': 'x'}) }}",
        "{{ messages[0].pop('content') }}",
        "{% include 'x' %}",
        "{% import 'x' as x %}",
        "{% extends 'x' %}",
        "{{ lipsum() }}",
        "{{ messages|pprint }}",
        "{{ messages|nothing }}",
        "{% nonsense %}",
        "{{ unknown.field }}",
    ],
)
def test_no_template_reaches_what_is_not_a_conversation(source):
    before = [dict(message) for message in CHAT]
    broken(source)
    assert before == CHAT


DOUBLED = "{% set ns = namespace(x='x' * 1000) %}{% for i in range(64) %}{% set ns.x = BY %}"
LISTS = "{% set ns = namespace(x=[1, 2]) %}{% for i in range(64) %}{% set ns.x = BY %}"


def growing(start, by, then="{{ ns.x }}"):
    return start.replace("BY", by) + "{% endfor %}" + then


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(10000) %}{% for j in range(10000) %}{% endfor %}{% endfor %}",
        "{% for i in range(10000) %}{% for j in range(10000) if false %}{% endfor %}{% endfor %}",
        "{% for i in range(10000) %}{{ range(10000)|list|length }}{% endfor %}",
        "{% for i in range(10001) %}{% endfor %}",
        "{% for i in range(10 * 10 * 10 * 10 * 10 * 10 * 10 * 10) %}{% endfor %}",
        "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% for m in messages recursive %}{{ loop(messages) }}{{ loop(messages) }}{% endfor %}",
        "{% macro f() %}{% call f() %}{% endcall %}{% call f() %}{% endcall %}{% endmacro %}"
        "{{ f() }}",
        "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
        "{{ 1.5|round(1000000000, 'ceil') }}",
        "{{ 1.5|round(-1000000000, 'floor') }}",
        "{{ 'x' * 1000000000 }}",
        "{{ 1000000000 * 'x' }}",
        "{{ ([1] * 1000000000)|length }}",
        "{{ ((1,) * 1000000000)|length }}",
        "{{ 9 ** 9 ** 9 }}",
        "{% set ns = namespace(x=99) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}"
        "{% endfor %}{{ ns.x }}",
        growing(DOUBLED, "ns.x + ns.x"),
        growing(DOUBLED, "ns.x ~ ns.x"),
        growing(DOUBLED, "[ns.x, ns.x]|join"),
        growing(DOUBLED, "ns.x.join([ns.x, ns.x])"),
        growing(DOUBLED, "''.join([ns.x, ns.x])"),
        growing(DOUBLED, "ns.x|replace('x', ns.x)"),
        growing(DOUBLED, "ns.x.replace('x', ns.x)"),
        growing(DOUBLED, "'%s%s'|format(ns.x, ns.x)"),
        growing(DOUBLED, "'%s%s' % (ns.x, ns.x)"),
        growing(LISTS, "ns.x + ns.x"),
        growing(LISTS, "[ns.x, ns.x]"),
        growing(LISTS, "[ns.x, ns.x]", "{{ ns.x ~ '' }}"),
        growing(LISTS, "[ns.x, ns.x]", "{{ ns.x|string }}"),
        growing(LISTS, "[ns.x, ns.x]", "{{ ns.x|tojson }}"),
        growing(LISTS, "{'a': ns.x, 'b': ns.x}", "{{ ns.x|tojson }}"),
        growing(LISTS, "[[ns.x, ns.x]]|sum(start=[])"),
        "{{ 'x'.center(1000000000) }}",
        "{{ 'x'.ljust(1000000000) }}",
        "{{ 'x'.zfill(1000000000) }}",
        "{{ 'x\\t'.expandtabs(1000000000) }}",
        "{{ 'x'|center(1000000000) }}",
        "{{ 'x\nx'|indent(1000000000) }}",
        "{{ 'x'|wordwrap(1000000000) }}",
        "{{ '%1000000000d'|format(1) }}",
        "{{ '%.1000000000f' % 1.5 }}",
        "{{ '%*d'|format(1000000000, 1) }}",
        "{{ '%.*f'|format(1000000000, 1.5) }}",
        "{{ '%-*d' % (1000000000, 1) }}",
        "{{ '%(n)*d' % {'n': 1000000000} }}",
        "{{ messages|tojson(indent=1000000000) }}",
        "{{ messages|tojson(separators=('x' * 100000, 'x' * 100000)) }}",
        "{% set x %}{% for i in range(9999) %}" + "x" * 1000 + "{% endfor %}{% endset %}",
        "{% filter upper %}{% for i in range(9999) %}" + "x" * 1000 + "{% endfor %}{% endfilter %}",
        "{% for i in range(9999) %}" + "x" * 1000 + "{% endfor %}",
        "{{ '" + "(" * 10_000 + "' + " + "(" * 500 + "1" + ")" * 500 + " }}",
    ],
)
def test_no_template_runs_on_or_fills_the_memory(source):
    began = time.thread_time()
    tracemalloc.start()
    try:
        message = broken(source)
        _, bytes_max = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert bytes_max < 64 * 1024 * 1024
    assert time.thread_time() - began < 6  # of which looking at the memory takes most
    assert len(message) < 600


def test_long_chats_are_within_what_a_template_may_do():
    """As long as they come, and written in the dearest ways published templates have."""
    chat = [{"role": "user", "content": "word " * 200}, {"role": "assistant", "content": "yes"}]
    many = chat * 512
    assert render(LLAMA, many).count("<|eot|>") == 1024
    behind = (
        "{% set ns = namespace(out='') %}{% for m in messages %}"
        "{% set ns.out = ns.out ~ m.content %}{% endfor %}{{ ns.out }}"
    )
    assert len(render(behind, many)) == 512 * 1003
    each_for_each = (
        "{% for m in messages %}{% set ns = namespace(n=0) %}"
        "{% for k in messages %}{% if k.role == m.role %}{% set ns.n = 1 %}{% endif %}{% endfor %}"
        "{% endfor %}done"
    )
    assert render(each_for_each, chat * 256) == "done"


def test_a_large_message_is_rendered_whole():
    large = [{"role": "user", "content": "x" * 8_000_000}]
    assert len(render(LLAMA, large)) > 8_000_000


def test_a_template_is_compiled_once_for_a_version_and_forgotten_when_there_are_many():
    templates = Templates()
    for version in range(TEMPLATES_HELD_MAX + 10):
        key = ("m", version, False)
        assert templates.render(key, f"v{version}", CHAT, {}) == f"v{version}"
    assert templates.render(("m", 520, False), "other", CHAT, {}) == "v520"  # as it was compiled
    assert templates.render(("m", 0, False), "again", CHAT, {}) == "again"


def test_one_broken_rendering_leaves_the_next_its_own_limits():
    templates = Templates()
    with pytest.raises(WorldError):
        templates.render(("bad", 1, False), "{{ 'x' * 1000000000 }}", CHAT, {})
    assert render(LLAMA, templates=templates)
