"""What goes out is what was asked for, and nothing a caller wrote can be more than its value."""

import pytest

from meterplane.kernel.invariant import InvariantBroken
from meterplane.triton.address import parse
from meterplane.triton.fleet import Fleet
from meterplane.triton.request import JOINED_BODY_BYTES_MAX, HeaderLines, Request
from meterplane.triton.v2 import model_path


def sent(request: Request, url: str = "http://triton:8000") -> bytes:
    address = parse(url)
    return b"".join(request.writes(address.prefix, address.version_and_host))


def test_a_request_is_these_bytes():
    request = Request("POST", "/v2/x?y=1", b"body", [(b"content-type", b"a/b"), (b"x", b"")])
    assert sent(request) == (
        b"POST /v2/x?y=1 HTTP/1.1\r\nhost: triton:8000\r\ncontent-length: 4\r\n"
        b"content-type: a/b\r\nx: \r\n\r\nbody"
    )


def test_pairs_lines_and_checked_lines_are_the_same():
    pairs = [(b"a", b"b"), (b"c", b"d")]
    forms = [pairs, b"a: b\r\nc: d\r\n", HeaderLines.of(pairs), HeaderLines.of(b"a: b\r\nc: d\r\n")]
    assert len({sent(Request("GET", "/", b"", form)) for form in forms}) == 1


def test_a_large_body_is_not_copied():
    body = b"x" * (JOINED_BODY_BYTES_MAX + 1)
    head, written = Request("POST", "/", body).writes(b"", b" HTTP/1.1\r\nhost: x\r\n")
    assert written is body
    assert b"xx" not in head


@pytest.mark.parametrize(
    "headers",
    [
        [(b"a", b"b\r\nc: d")],
        [(b"a", b"b\nc")],
        [(b"a", b"b\r")],
        [(b"a", b"b\x00")],
        [(b"a\r\nb", b"c")],
        [(b"a b", b"c")],
        [(b"a:", b"b")],
        [(b"", b"b")],
        [(b"Host", b"evil")],
        [(b"content-LENGTH", b"0")],
        [(b"Transfer-Encoding", b"chunked")],
        [(b"connection", b"close")],
        [(b"expect", b"100-continue")],
        b"a: b",
        b"a: b\r\n\r\n",
        b"\r\n",
        b"a: b\r\n c: folded\r\n",
        b"a: b\nc: d\r\n",
        b"host: evil\r\n",
        b"a: b\r\ncontent-length: 1\r\n",
    ],
)
def test_headers_cannot_break_out_of_their_lines(headers):
    with pytest.raises(InvariantBroken):
        Request("POST", "/x", b"", headers)


@pytest.mark.parametrize(
    "path", ["", "x", "/x y", "/x\r\n", "/x\n", "/\x00", "/ü", "/x HTTP/1.1\r\nhost: evil\r\n\r\n"]
)
def test_a_path_cannot_break_out_of_its_line(path):
    with pytest.raises(InvariantBroken):
        Request("POST", path)


@pytest.mark.parametrize(
    ("url", "host", "port", "tls", "line"),
    [
        ("http://triton", "triton", 80, False, b"GET /x HTTP/1.1\r\nhost: triton\r\n"),
        ("http://triton:8000/", "triton", 8000, False, b"GET /x HTTP/1.1\r\nhost: triton:8000\r\n"),
        ("https://a.b/v1", "a.b", 443, True, b"GET /v1/x HTTP/1.1\r\nhost: a.b\r\n"),
        ("https://a.b:8/v1/", "a.b", 8, True, b"GET /v1/x HTTP/1.1\r\nhost: a.b:8\r\n"),
        ("http://[::1]:8000", "::1", 8000, False, b"GET /x HTTP/1.1\r\nhost: [::1]:8000\r\n"),
        ("http://h/a/b-c_d", "h", 80, False, b"GET /a/b-c_d/x HTTP/1.1\r\nhost: h\r\n"),
    ],
)
def test_an_address_says_where_to_connect_and_what_precedes_every_path(url, host, port, tls, line):
    address = parse(url)
    assert (address.host, address.port, address.tls) == (host, port, tls)
    assert sent(Request("GET", "/x"), url).startswith(line)


def test_a_password_in_an_address_is_refused_and_not_repeated():
    with pytest.raises(ValueError, match="may not") as caught:
        parse("http://user:secret@triton")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (("m",), "/v2/models/m"),
        (("m", "infer"), "/v2/models/m/infer"),
        (("m", "generate_stream", "12"), "/v2/models/m/versions/12/generate_stream"),
        (("all-MiniLM_L6.v2", "ready"), "/v2/models/all-MiniLM_L6.v2/ready"),
        (("a/../b c?d#e\r\n", "infer"), "/v2/models/a%2F..%2Fb%20c%3Fd%23e%0D%0A/infer"),
    ],
)
def test_a_models_name_is_one_segment_of_a_path(arguments, path):
    assert model_path(*arguments) == path
    Request("GET", path)


@pytest.mark.parametrize(
    "arguments",
    [
        ("",),
        (".",),
        ("..", "infer"),
        ("m", "infer", "latest"),
        ("m", "infer", "1/../../x"),
        ("m", "infer", "\u0661"),
    ],
)
def test_what_is_no_name_or_version_is_refused(arguments):
    with pytest.raises(ValueError, match="not a model"):
        model_path(*arguments)


@pytest.mark.parametrize(
    "url",
    [
        "triton:8000",
        "http://",
        "grpc://t",
        "http://triton:8000/x?y",
        "http://triton:8000/x y",
        "http://user:secret@triton",
        "http://triton:99999",
        "http://triton:8000/\r\nevil",
        "http://tri ton",
        "http://[::1",
        "https://triton:8000#x",
    ],
)
def test_an_address_a_fleet_cannot_speak_to_is_refused_at_the_start(url):
    with pytest.raises(ValueError, match="TRITON_URLS"):
        Fleet([url])
