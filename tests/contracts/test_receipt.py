"""A receipt is verified by anybody with the public key, and by nobody once anything is changed."""

import base64
import json
from datetime import UTC, datetime
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from meterplane.contracts.receipt import (
    ReceiptInvalid,
    SettledRequest,
    SigningKey,
    UnitPrices,
    canonical,
    charge_explained,
    claims_of,
    key_set,
    receipt,
    signed,
    signing_keys,
    verified,
)

# RFC 8037, appendix A: the key, its thumbprint, and the signature of the example.
RFC_SEED = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"
RFC_X = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
RFC_THUMBPRINT = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
RFC_SIGNED = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"
RFC_SIGNATURE = (
    "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
)
KEY, OTHER = signing_keys(f"{'11' * 32}, {'22' * 32}")
KEYS = key_set([KEY])
SETTLED = SettledRequest(
    request_id=UUID("01a2291e-8f27-70bb-bf36-1ceee8105cb6"),
    tenant_id=UUID(int=1),
    project_id=UUID(int=2),
    key_id=UUID(int=3),
    requested_model="",
    model="tiny-lm",
    surface="openai.chat",
    stream=True,
    service_tier="standard",
    status="ok",
    http_status=200,
    admitted_at=datetime(2026, 11, 29, 20, 57, 54, 123_000, tzinfo=UTC),
    first_byte_ms=900,
    settled_at=datetime(2026, 11, 29, 20, 57, 56, tzinfo=UTC),
    tokens_in=10,
    tokens_out=20,
    requests=1,
    provenance="engine",
    tags={"team": "Zürich", "\U0001f600": "after", "￼": "before"},
    prices=UnitPrices(UUID(int=4), 150_000, 600_000, 0),
    currency="USD",
    reserved_nano=50_000,
    cost_nano=13_500,
    segment_id=UUID(int=5),
)


def part(jws: str, number: int) -> bytes:
    text = jws.split(".")[number]
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_keys_and_signatures_are_those_of_the_rfc():
    key = SigningKey(base64.urlsafe_b64decode(RFC_SEED + "="))
    assert (key.public()["x"], key.key_id) == (RFC_X, RFC_THUMBPRINT)
    assert base64.urlsafe_b64encode(key.sign(RFC_SIGNED)).rstrip(b"=").decode() == RFC_SIGNATURE


def test_any_library_of_ed25519_verifies_it_with_the_public_key_alone():
    document = json.loads(receipt(SETTLED, KEY))
    head, payload, signature = (part(document["jws"], number) for number in range(3))
    assert json.loads(head) == {
        "alg": "EdDSA", "kid": KEY.key_id, "typ": "meterplane-receipt+jws"
    }  # fmt: skip
    x = KEYS["keys"][0]["x"]
    public = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(x + "="))
    public.verify(signature, document["jws"].rpartition(".")[0].encode())
    assert json.loads(payload) == {key: document[key] for key in document if key != "jws"}


def test_a_receipt_says_who_what_when_and_how_much():
    claims = claims_of(SETTLED)
    assert claims["charge"] == {
        "amount_nano": "13500", "amount": "0.0000135", "currency": "USD"
    }  # fmt: skip
    assert claims["prices"] == {
        "version_id": str(UUID(int=4)),
        "input_token": "0.00000015",
        "output_token": "0.0000006",
        "request": "0",
    }
    assert [claims["admitted_at"], claims["first_byte_at"], claims["settled_at"]] == [
        "2026-11-29T20:57:54.123Z", "2026-11-29T20:57:55.023Z", "2026-11-29T20:57:56.000Z"
    ]  # fmt: skip
    assert claims["requested_model"] == "tiny-lm"
    assert charge_explained(claims)
    assert not charge_explained(claims | {"tokens_in": 11})
    capped = claims | {"tokens_in": 10**6, "charge": claims["reserved"]}
    assert charge_explained(capped)
    assert charge_explained(claims | {"prices": None}) is None


def test_the_same_event_is_the_same_bytes():
    turned = dict(reversed(SETTLED.tags.items()))
    again = SettledRequest(
        **{name: getattr(SETTLED, name) for name in SettledRequest.__slots__} | {"tags": turned}
    )
    assert receipt(again, KEY) == receipt(SETTLED, KEY)


def test_names_are_ordered_by_their_utf_16_code_units():
    """RFC 8785, 3.2.3: a surrogate pair comes before U+FFFC, though its code point is above."""
    assert canonical({"￼": 1, "\U0001f600": [{"b": None, "a": True}]}) == (
        '{"\U0001f600":[{"a":true,"b":null}],"￼":1}'.encode()
    )


def test_what_was_signed_is_verified_as_document_and_as_bare_jws():
    document = receipt(SETTLED, KEY)
    assert verified(document, KEYS) == claims_of(SETTLED)
    assert verified(json.loads(document)["jws"].encode() + b"\n", KEYS) == claims_of(SETTLED)
    assert verified(document, key_set([OTHER, KEY])) == claims_of(SETTLED)


def test_every_changed_byte_of_a_receipt_is_found():
    document = receipt(SETTLED, KEY)
    for at in range(len(document)):
        changed = bytearray(document)
        changed[at] ^= 1
        with pytest.raises(ReceiptInvalid):
            verified(bytes(changed), KEYS)


def forged(**changes: object) -> bytes:
    document = json.loads(receipt(SETTLED, KEY))
    return json.dumps(document | changes).encode()


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (forged(tokens_in=9), "does not say what was signed: tokens_in"),
        (forged(requests=True), "does not say what was signed: requests"),
        (forged(more=1), "does not say what was signed: more"),
        (forged(jws=None), "no jws"),
        (forged(jws="a.b"), "not base64url"),
        (b"", "not base64url|not JSON"),
        (b"{", "not JSON"),
        (b'{"jws": "x", "jws": "y"}', "twice"),
        (b"{" * 100_000, "not JSON"),
        (b'{"a": NaN, "jws": ""}', "not JSON"),
        (b"\xff" * 10, "not JSON"),
        (b" " * 300_000, "too long"),
        (receipt(SETTLED, OTHER), "no usable key"),
    ],
)
def test_a_forgery_is_told_by_what_is_wrong_with_it(document, words):
    with pytest.raises(ReceiptInvalid, match=words):
        verified(document, KEYS)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ({"alg": "none"}, "signed with EdDSA"),
        ({"alg": "HS256"}, "signed with EdDSA"),
        ({"typ": "JWT"}, "signed with EdDSA"),
        ({"crit": ["b64"]}, "extensions"),
        ({"kid": None}, "no usable key"),
    ],
)
def test_a_signature_of_another_kind_is_none(head, words):
    usual = {"alg": "EdDSA", "kid": KEY.key_id, "typ": "meterplane-receipt+jws"}
    text = base64.urlsafe_b64encode(json.dumps(usual | head).encode()).rstrip(b"=").decode()
    content = f"{text}.{signed(claims_of(SETTLED), KEY).split('.')[1]}"
    signature = base64.urlsafe_b64encode(KEY.sign(content.encode())).rstrip(b"=").decode()
    with pytest.raises(ReceiptInvalid, match=words):
        verified(f"{content}.{signature}".encode(), KEYS)


@pytest.mark.parametrize("keys", [{}, {"keys": 1}, {"keys": [1, {"kid": KEY.key_id}]}])
def test_a_key_set_that_is_none_verifies_nothing(keys):
    with pytest.raises(ReceiptInvalid, match="no usable key"):
        verified(receipt(SETTLED, KEY), keys)


@pytest.mark.parametrize("text", ["", "11", f"{'11' * 32},", "x" * 64])
def test_keys_that_are_none_do_not_start(text):
    with pytest.raises(ValueError, match=r"key \d must be 64 hexadecimal digits"):
        signing_keys(text)


def test_a_rotated_key_signs_no_more_and_still_verifies():
    before = receipt(SETTLED, KEY)
    rotated = signing_keys(f"{'22' * 32},{'11' * 32}")
    after = receipt(SETTLED, rotated[0])
    assert before != after
    for document in (before, after):
        assert verified(document, key_set(rotated)) == claims_of(SETTLED)
