"""https, a path prefix, and IPv6."""

import asyncio
import datetime
import ipaddress
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from meterplane.triton.failures import TritonUnavailable
from tests.triton.fleets import (
    STREAM_END,
    STREAM_HEAD,
    ask,
    forever,
    open_stream,
    piece,
)
from tests.triton.scripted import Peer, Scripted, scripted


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    """A key and a certificate of its own signing, for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    begins = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begins)
        .not_valid_after(begins + datetime.timedelta(days=20_000))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


async def secure(script, certificate: Path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    made = Scripted(script)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=context)
    made.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    return made, server


async def test_an_https_server_is_spoken_to_when_its_certificate_is_trusted(fleets, certificate):
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        while request := await peer.request():
            if b"/stream" in request:
                await peer.send(STREAM_HEAD + piece(b"a"), piece(b"b"))
                await peer.gone()
                gone.set()
                return
            await peer.send(STREAM_HEAD + piece(b"hello"), STREAM_END)

    made, server = await secure(script, certificate)
    try:
        trusting = ssl.create_default_context(cafile=str(certificate))
        fleet = fleets(made.url, tls=trusting)
        for _ in range(3):
            assert (await ask(fleet.pool())).body == b"hello"
        assert made.connections == 1
        upstream = await open_stream(fleet.pool(), "/stream")
        assert (await upstream.block()).startswith(b"a")
        upstream.close()
        await asyncio.wait_for(gone.wait(), 10)
        await fleet.close()
        await asyncio.sleep(0.05)
    finally:
        server.close()
        await made.stop()


async def test_a_certificate_nobody_vouches_for_is_no_server(fleets, certificate):
    asked = False

    async def script(peer: Peer) -> None:
        nonlocal asked
        asked = bool(await peer.request())

    made, server = await secure(script, certificate)
    try:
        with pytest.raises(TritonUnavailable):
            await ask(fleets(made.url).pool())
        await asyncio.sleep(0.05)
        assert not asked
    finally:
        server.close()
        await made.stop()


async def test_a_prefix_stands_before_every_path(fleets):
    seen: list[bytes] = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async with scripted(script) as server:
        await ask(fleets(f"{server.url}/v1").pool(), "/chat/completions")
    assert seen[0].startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")


async def test_a_server_may_have_an_ipv6_address(fleets):
    made = Scripted(forever)
    server = await asyncio.start_server(made.serve, "::1", 0)
    try:
        url = f"http://[::1]:{server.sockets[0].getsockname()[1]}"
        assert (await ask(fleets(url).pool())).body == b"hello"
    finally:
        server.close()
        await made.stop()
