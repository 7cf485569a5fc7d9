"""The form encoding, as the SDK and curl send it."""

import string
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stripe_sandbox import forms
from stripe_sandbox.errors import StripeError


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("", {}),
        ("a=1&b=", {"a": "1", "b": ""}),
        ("a=1&a=2", {"a": "2"}),
        ("m[k]=v&m[l]=w", {"m": {"k": "v", "l": "w"}}),
        ("l[0][amount]=5&l[1][amount]=-6", {"l": {"0": {"amount": "5"}, "1": {"amount": "-6"}}}),
        ("expand[]=a&expand[]=b", {"expand": {"0": "a", "1": "b"}}),
        ("m%5Bk%5D=a%26b+c%C3%A9", {"m": {"k": "a&b cé"}}),
    ],
)
def test_pairs_become_a_tree(text: str, tree: dict):
    assert forms.decode(text) == tree


@pytest.mark.parametrize(
    "text",
    ["a[=1", "a]b=1", "[a]=1", "a[b]c=1", "a=1&a[b]=2", "a[b]=2&a=1", "a[b][c][d][e][f][g]=1"],
)
def test_malformed_names_are_refused(text: str):
    with pytest.raises(StripeError) as refused:
        forms.decode(text)
    assert refused.value.status == 400


keys = st.text(string.ascii_letters + "_.- é", min_size=1, max_size=8)
trees = st.recursive(
    st.text(max_size=10),
    lambda inner: st.dictionaries(keys, inner, min_size=1, max_size=3),
    max_leaves=8,
)


def _pairs(tree: dict | str, name: str) -> list[str]:
    if isinstance(tree, str):
        return [f"{quote(name)}={quote(tree)}"]
    return [pair for key, inner in tree.items() for pair in _pairs(inner, f"{name}[{key}]")]


@given(st.dictionaries(keys, st.dictionaries(keys, trees, min_size=1, max_size=2), max_size=3))
def test_any_tree_survives_the_wire(tree: dict):
    if _depth(tree) > forms.MAX_DEPTH:
        return
    wire = "&".join(pair for key, inner in tree.items() for pair in _pairs(inner, key))
    assert forms.decode(wire) == tree


def _depth(tree: dict | str) -> int:
    return 0 if isinstance(tree, str) else 1 + max(map(_depth, tree.values()), default=0)
