"""API keys die of a typo without a read."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterplane.contracts import api_key

PEPPER = b"p" * 32


def test_a_fresh_key_is_well_formed_and_hides_in_its_digest():
    key = api_key.mint("live", PEPPER)
    assert api_key.is_well_formed(key.secret)
    assert key.secret.startswith("mp_live_")
    assert len(key.secret) == len("mp_live_") + 49
    assert key.digest == api_key.digest(key.secret, PEPPER)
    assert key.secret.encode() not in key.digest


def test_an_operator_key_is_not_an_inference_key():
    key = api_key.mint("admin", PEPPER)
    assert api_key.is_well_formed(key.secret, "admin")
    assert not api_key.is_well_formed(key.secret)


@given(st.integers(min_value=0, max_value=56), st.sampled_from(string.printable))
def test_any_single_typo_is_caught(position, letter):
    secret = api_key.mint("live", PEPPER).secret
    mistyped = secret[:position] + letter + secret[position + 1 :]
    assert api_key.is_well_formed(mistyped) == (mistyped == secret)


@given(st.text(max_size=80))
def test_no_text_breaks_the_check(candidate):
    assert not api_key.is_well_formed(candidate)


def test_a_short_pepper_is_refused():
    with pytest.raises(ValueError, match="32 bytes"):
        api_key.digest("mp_live_x", b"")
