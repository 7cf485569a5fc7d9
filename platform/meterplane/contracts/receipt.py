"""A receipt: what one request used and was charged, signed, for whoever holds it to check alone.

The document is the claims and, in `jws`, a compact JWS over them: EdDSA with Ed25519, RFC 8037. Its
payload is the claims in RFC 8785's canonical form, so the same event signed with the same key is
the same bytes every time. What the signature covers is the payload; `verified` refuses a document
whose own claims are others. Amounts are strings of integers in nano beside plain decimals, unit
prices decimals of the currency per unit: no number in it is anything but a count.

A key is known by its RFC 7638 thumbprint. Keys are 32 bytes in hexadecimal, the newest first: that
one signs, the others are only listed, so that what they signed stays verifiable. Pure: no clock, no
I/O, no Django.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from meterplane.contracts.usage import ServiceTier, cost_nano
from meterplane.kernel import clock
from meterplane.kernel.money import nano_to_text, pico_to_text, text_to_pico

VERSION = 1
ALGORITHM = "EdDSA"
TYPE = "meterplane-receipt+jws"
SEED_BYTES = 32
DOCUMENT_BYTES_MAX = 256 * 1024  # 16 tags of 64 + 256 characters, escaped, twice, and base64


class ReceiptInvalid(ValueError):
    """It is not what was signed, or not signed by a key that is listed. Says which."""


@dataclass(frozen=True, slots=True)
class UnitPrices:
    """What was applied, in pico per unit, and the published version that says so."""

    version_id: UUID
    input_token_pico: int
    output_token_pico: int
    request_pico: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SettledRequest:
    """The facts of one usage event. `prices` is None where the version's are not known any more.

    `requested_model` is what was asked for, `model` what served. `first_byte_ms` is from admission,
    0 where no byte left.
    """

    request_id: UUID
    tenant_id: UUID
    project_id: UUID
    key_id: UUID
    requested_model: str
    model: str
    surface: str
    stream: bool
    service_tier: ServiceTier
    status: str
    http_status: int
    admitted_at: datetime
    first_byte_ms: int
    settled_at: datetime
    tokens_in: int
    tokens_out: int
    requests: int
    provenance: str
    tags: Mapping[str, str]
    prices: UnitPrices | None
    currency: str
    reserved_nano: int
    cost_nano: int
    segment_id: UUID


class SigningKey:
    """One private key of an installation. `key_id` is what its signatures name."""

    def __init__(self, seed: bytes) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self._x = _encoded(self._private.public_key().public_bytes_raw())
        self.key_id = _thumbprint(self._x)

    def public(self) -> dict[str, str]:
        """Its public half as a JWK."""
        return {
            "kty": "OKP", "crv": "Ed25519", "x": self._x, "kid": self.key_id, "alg": ALGORITHM,
            "use": "sig",
        }  # fmt: skip

    def sign(self, content: bytes) -> bytes:
        """The 64 bytes of a signature: of the same content, always the same."""
        return self._private.sign(content)


def signing_keys(text: str) -> list[SigningKey]:
    """The keys in a setting: hexadecimal, separated by commas, the newest first.

    Raises ValueError naming the position; never a part of a key.
    """
    keys = []
    for number, part in enumerate(text.split(","), 1):
        try:
            seed = bytes.fromhex(part.strip())
        except ValueError:
            seed = b""
        if len(seed) != SEED_BYTES:
            raise ValueError(f"key {number} must be {2 * SEED_BYTES} hexadecimal digits (32 bytes)")
        keys.append(SigningKey(seed))
    return keys


def key_set(keys: Sequence[SigningKey]) -> dict[str, Any]:
    """The public halves as a JWKS."""
    return {"keys": [key.public() for key in keys]}


def claims_of(settled: SettledRequest) -> dict[str, Any]:
    """What a receipt says of a request. JSON's types only."""
    first_byte_ms = settled.first_byte_ms
    return {
        "object": "receipt",
        "version": VERSION,
        "request_id": str(settled.request_id),
        "organisation_id": str(settled.tenant_id),
        "project_id": str(settled.project_id),
        "key_id": str(settled.key_id),
        "requested_model": settled.requested_model or settled.model,
        "model": settled.model,
        "surface": settled.surface,
        "stream": settled.stream,
        "service_tier": settled.service_tier,
        "status": settled.status,
        "http_status": settled.http_status,
        "admitted_at": _instant(settled.admitted_at),
        "first_byte_at": _instant(settled.admitted_at, first_byte_ms) if first_byte_ms else None,
        "settled_at": _instant(settled.settled_at),
        "tokens_in": settled.tokens_in,
        "tokens_out": settled.tokens_out,
        "requests": settled.requests,
        "provenance": settled.provenance,
        "tags": dict(settled.tags),
        "prices": _prices(settled.prices),
        "reserved": _amount(settled.reserved_nano, settled.currency),
        "charge": _amount(settled.cost_nano, settled.currency),
        "journal_segment_id": str(settled.segment_id),
    }


def receipt(settled: SettledRequest, key: SigningKey) -> bytes:
    """The receipt of a request, as it is handed out."""
    claims = claims_of(settled)
    return canonical(claims | {"jws": signed(claims, key)})


def signed(claims: Mapping[str, Any], key: SigningKey) -> str:
    """The compact JWS over claims."""
    head = canonical({"alg": ALGORITHM, "kid": key.key_id, "typ": TYPE})
    content = f"{_encoded(head)}.{_encoded(canonical(claims))}"
    return f"{content}.{_encoded(key.sign(content.encode()))}"


def verified(document: bytes, keys: Mapping[str, Any]) -> dict[str, Any]:
    """The claims of a receipt, or of its bare JWS, that a key of this JWKS has signed.

    Raises `ReceiptInvalid`, for a document also where what stands beside the JWS is not what the
    JWS holds: people read the one, signatures cover the other.
    """
    if len(document) > DOCUMENT_BYTES_MAX:
        raise ReceiptInvalid("it is too long for a receipt")
    text = document.strip()
    if not text.startswith(b"{"):
        return _verified_jws(text.decode("ascii", "replace"), keys)
    beside = _object(text, "the receipt")
    jws = beside.pop("jws", None)
    if not isinstance(jws, str):
        raise ReceiptInvalid("it has no jws")
    claims = _verified_jws(jws, keys)
    differ = [
        name
        for name in sorted(claims.keys() | beside.keys())
        if _part(claims, name) != _part(beside, name)
    ]
    if differ:
        raise ReceiptInvalid(f"it does not say what was signed: {', '.join(differ)[:200]}")
    return claims


def _part(document: Mapping[str, Any], name: str) -> bytes:
    """One field in canonical form: so 1 is not true, and not 1.0."""
    try:
        return canonical({name: document[name]} if name in document else {})
    except RecursionError:
        raise ReceiptInvalid("it is nested too deeply") from None


def charge_explained(claims: Mapping[str, Any]) -> bool | None:
    """Whether quantities times unit prices are the charge; None where no prices are told.

    A request never costs more than was reserved, whatever its engine counted.
    """
    prices = claims.get("prices")
    if prices is None:
        return None
    product_nano = cost_nano(
        claims["tokens_in"],
        claims["tokens_out"],
        claims["requests"],
        input_token_pico=text_to_pico(prices["input_token"]),
        output_token_pico=text_to_pico(prices["output_token"]),
        request_pico=text_to_pico(prices["request"]),
    )
    reserved_nano = int(claims["reserved"]["amount_nano"])
    return int(claims["charge"]["amount_nano"]) == min(product_nano, reserved_nano)


def canonical(content: Any) -> bytes:
    """RFC 8785 of what has no fractions: names by their UTF-16 code units, no space."""
    text = json.dumps(_in_order(content), ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")  # halves are nobody's: they compare as they are


def _in_order(content: Any) -> Any:
    if isinstance(content, Mapping):
        names = sorted(content, key=lambda name: name.encode("utf-16-be", "surrogatepass"))
        return {name: _in_order(content[name]) for name in names}
    if isinstance(content, list):
        return [_in_order(each) for each in content]
    return content


def _verified_jws(jws: str, keys: Mapping[str, Any]) -> dict[str, Any]:
    content, _, signature = jws.rpartition(".")
    head_part, _, claims_part = content.partition(".")
    head = _object(_decoded(head_part), "the head of its jws")
    if (head.get("alg"), head.get("typ")) != (ALGORITHM, TYPE):
        raise ReceiptInvalid(f"its jws is no {TYPE} signed with {ALGORITHM}")
    if "crit" in head:
        raise ReceiptInvalid("its jws asks for extensions that nobody defined")
    public = _public(keys, head.get("kid"))
    try:
        public.verify(_decoded(signature), content.encode())
    except InvalidSignature:
        raise ReceiptInvalid("its signature is not that of its content") from None
    return _object(_decoded(claims_part), "what was signed")


def _public(keys: Mapping[str, Any], key_id: object) -> Ed25519PublicKey:
    listed = keys.get("keys")
    for key in listed if isinstance(listed, list) else []:
        if not isinstance(key, dict) or key.get("kid") != key_id or key_id is None:
            continue
        if key.get("kty") != "OKP" or key.get("crv") != "Ed25519":
            break
        try:
            return Ed25519PublicKey.from_public_bytes(_decoded(str(key.get("x"))))
        except ValueError:
            break
    raise ReceiptInvalid(f"no usable key {str(key_id)[:80]!r} is listed")


def _object(text: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):  # also JSON's and UTF-8's
        raise ReceiptInvalid(f"{what} is not JSON, or names something twice") from None
    if not isinstance(found, dict):
        raise ReceiptInvalid(f"{what} is not an object")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Who reads the first of two names and who reads the last would read two receipts."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _instant(at: datetime, after_ms: int = 0) -> str:
    instant_ms = clock.to_ms(at) + after_ms
    return f"{clock.from_ms(instant_ms):%Y-%m-%dT%H:%M:%S}.{instant_ms % 1000:03d}Z"


def _prices(prices: UnitPrices | None) -> dict[str, str] | None:
    if prices is None:
        return None
    return {
        "version_id": str(prices.version_id),
        "input_token": pico_to_text(prices.input_token_pico),
        "output_token": pico_to_text(prices.output_token_pico),
        "request": pico_to_text(prices.request_pico),
    }


def _amount(amount_nano: int, currency: str) -> dict[str, str]:
    return {
        "amount_nano": str(amount_nano),
        "amount": nano_to_text(amount_nano),
        "currency": currency,
    }


def _thumbprint(x: str) -> str:
    return _encoded(hashlib.sha256(canonical({"crv": "Ed25519", "kty": "OKP", "x": x})).digest())


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    """Strict base64url without padding: one signature is spelled in one way."""
    try:
        content = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ReceiptInvalid("its jws is not base64url") from None
    if _encoded(content) != text:
        raise ReceiptInvalid("its jws is not base64url")
    return content
