"""Every form of address redis-py takes, over the socket, TCP and TLS; a bad one is told by name."""

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
from urllib.parse import quote

import pytest
import redis.asyncio as redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from meterplane.gateway.lua_calls import LuaCalls, LuaUnavailable, Script
from meterplane.gateway.redis_connection import AddressInvalid, _by_redis_py, pack, parse_address
from tests import environment

WHERE = Script("redis.call('SET', KEYS[1], ARGV[1]) return ARGV[1]")


@pytest.mark.parametrize(
    ("url", "path", "host", "port", "opening"),
    [
        ("redis://", None, "localhost", 6379, []),
        ("redis://h/", None, "h", 6379, []),
        ("redis://h:6379", None, "h", 6379, []),
        ("redis://h/x", None, "h", 6379, []),
        ("redis://user@h", None, "h", 6379, [("AUTH", "user", "")]),
        ("redis://HOST%2Eexample", None, "host.example", 6379, []),
        (
            "unix://:p@/run/r%20s.sock?db=07",
            "/run/r s.sock",
            "",
            0,
            [("AUTH", "p"), ("SELECT", "7")],
        ),
        ("redis://h:7000/3", None, "h", 7000, [("SELECT", "3")]),
        ("redis://h?db=4", None, "h", 6379, [("SELECT", "4")]),
        ("redis://:p%40ss@h/0", None, "h", 6379, [("AUTH", "p@ss")]),
        ("redis://user:pw@h", None, "h", 6379, [("AUTH", "user", "pw")]),
        ("redis://h?username=u&password=p", None, "h", 6379, [("AUTH", "u", "p")]),
        ("redis://h?client_name=gw", None, "h", 6379, [("CLIENT", "SETNAME", "gw")]),
        ("redis://[::1]:7000", None, "::1", 7000, []),
        ("redis://h?socket_timeout=1&health_check_interval=3", None, "h", 6379, []),
        ("unix:///run/r.sock?db=2", "/run/r.sock", "", 0, [("SELECT", "2")]),
        ("unix://u:p@/run/r.sock", "/run/r.sock", "", 0, [("AUTH", "u", "p")]),
    ],
)
def test_an_address_is_read_as_redis_py_reads_it(url, path, host, port, opening):
    address = parse_address(url)
    assert (address.path, address.host, address.port) == (path, host, port)
    assert address.opening == tuple(pack(*each) for each in opening)
    assert address.tls is None
    assert address == _by_redis_py(url)


def test_a_rediss_address_checks_certificates_unless_told_otherwise():
    checked = parse_address("rediss://h:6380").tls
    assert checked.verify_mode is ssl.CERT_REQUIRED
    assert checked.check_hostname
    assert parse_address("rediss://h?ssl_cert_reqs=none").tls.verify_mode is ssl.CERT_NONE


@pytest.mark.parametrize(
    "url", ["http://:secret@h", "redis://:secret@h?db=x", "redis://:secret@h?unheard_of=1"]
)
def test_an_address_that_cannot_be_used_is_told_without_its_password(url):
    with pytest.raises(AddressInvalid) as told:
        parse_address(url)
    assert "redis://, rediss:// and unix://" in str(told.value)
    assert "secret" not in str(told.value)


@pytest.fixture
def certificate(tmp_path):
    """A key and a certificate of its own signing, for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    begins = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    local = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(begins)
        .not_valid_after(begins + datetime.timedelta(days=20_000))
        .add_extension(local, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    path = tmp_path / "certificate.pem"
    path.write_bytes(private + made.public_bytes(pem))
    return path


async def copy(reader, writer):
    while data := await reader.read(65_536):
        writer.write(data)
    writer.close()


@contextlib.asynccontextmanager
async def door(socket_path, tls=None):
    """A TCP port in front of the real Redis, which has none."""
    tasks, writers = set(), []

    async def serve(reader, writer):
        inner, outer = await asyncio.open_unix_connection(socket_path)
        writers.extend([writer, outer])
        tasks.add(asyncio.create_task(copy(inner, writer)))
        with contextlib.suppress(OSError):
            await copy(reader, outer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.05)


async def answers(url):
    """What a call through this address answers."""
    calls = LuaCalls(url, [WHERE])
    calls.start()
    try:
        return await calls.ask(WHERE.command(["where"], ["here"]))
    finally:
        await calls.close()


@pytest.fixture
def socket_path(redis_url):
    return redis_url.partition("@")[2].partition("?")[0]


PASSWORD = quote(environment.REDIS_PASSWORD)


async def test_the_database_of_the_address_is_the_one_written_to(socket_path):
    assert await answers(f"unix://:{PASSWORD}@{socket_path}?db=5") == b"here"
    async with redis.Redis.from_url(f"unix://:{PASSWORD}@{socket_path}?db=5") as client:
        assert await client.get("where") == b"here"
        await client.flushdb()


async def test_a_tcp_address_with_a_user_is_let_in(socket_path):
    async with door(socket_path) as port:
        assert await answers(f"redis://default:{PASSWORD}@127.0.0.1:{port}/0") == b"here"


async def test_a_tls_address_is_let_in_when_its_certificate_is_trusted(socket_path, certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    async with door(socket_path, context) as port:
        url = f"rediss://:{PASSWORD}@127.0.0.1:{port}"
        assert await answers(f"{url}?ssl_ca_certs={certificate}") == b"here"
        with pytest.raises(LuaUnavailable):
            await answers(url)
