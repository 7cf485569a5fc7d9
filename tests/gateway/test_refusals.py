"""Every refusal in the shape of its surface, and nothing of it in the journal."""

import contextlib
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2 as httpx
import openai
import psycopg
import pytest
import redis
import tritonclient.http as triton_http
import tritonclient.utils

from meterplane.catalog.models import Model
from meterplane.contracts import admission_keys
from meterplane.kernel.limits import REFUSING_POLICY_AGE_S_MAX
from meterplane.policy.compile import recompile_everyone
from tenants.keys import revoke_key
from tenants.standing import set_standing
from tests import environment
from tests.conftest import free_port, wait_until

pytestmark = pytest.mark.django_db(transaction=True)

CHAT = (
    "/v1/chat/completions",
    {"model": "tiny-lm", "messages": [{"role": "user", "content": "x"}]},
)
EMBED = ("/v1/embeddings", {"model": "all-minilm-l6-v2", "input": "x"})
INFER = (
    "/v2/models/identity/infer",
    {"inputs": [{"name": "INPUT0", "shape": [1], "datatype": "FP32", "data": [1]}]},
)
SURFACES = pytest.mark.parametrize("call", [CHAT, EMBED, INFER], ids=["chat", "embed", "infer"])
UNKNOWN_KEY = "mp_live_0000000000000000000000000000000000000000000"


def unknown_key() -> str:
    from meterplane.contracts import api_key

    return api_key.mint("live", b"another installation's pepper..." * 2).secret


def told(answer: httpx.Response):
    """The message of an error, after checking that it has its surface's shape."""
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    if answer.request.url.path.startswith("/v1/"):
        assert set(error) == {"message", "type", "param", "code"}
        return error["message"]
    assert answer.json().keys() == {"error"}
    assert isinstance(error, str)
    return error


@SURFACES
def test_a_malformed_key_is_401(gateway, call):
    nonsense = [
        "",
        "Bearer",
        "Bearer x",
        "Basic abc",
        f"Bearer {UNKNOWN_KEY}",
        "Bearer " + "é" * 57,
    ]
    for header in (None, *nonsense):
        headers = [] if header is None else [(b"Authorization", header.encode())]
        answer = httpx.post(gateway.url + call[0], json=call[1], headers=headers)
        assert answer.status_code == 401, header
        assert "mp_live_" in told(answer)


LOOKUP = "FROM gateway_policy WHERE digest"


@pytest.fixture
def logged_lookups(transactional_db):
    """PostgreSQL writes down what gateways ask it; answers how many lookups it has seen."""
    log = environment.HOME / "logs" / "postgres.log"
    with psycopg.connect(environment.database_url("postgres"), autocommit=True) as admin:
        admin.execute("ALTER ROLE meterplane_gateway SET log_statement = 'all'")
        yield lambda: log.read_text(errors="replace").count(LOOKUP)
        admin.execute("ALTER ROLE meterplane_gateway RESET log_statement")


def test_a_malformed_key_dies_without_a_read_and_an_unknown_one_after_one(
    logged_lookups, start_gateway, triton, acme, redis_url
):
    """Counted where it cannot lie: by the servers that would be asked."""
    gateway = start_gateway(triton.http_url)

    def asked():
        with redis.Redis.from_url(redis_url) as admission:
            calls = admission.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]
        return logged_lookups(), calls

    def call_20_times(secret):
        for _ in range(20):
            answer = httpx.post(
                gateway.url + CHAT[0], json=CHAT[1], headers={"Authorization": f"Bearer {secret}"}
            )
            assert answer.status_code == 401

    before = asked()
    call_20_times(UNKNOWN_KEY)
    assert asked() == before
    call_20_times(unknown_key())
    assert asked() == (before[0] + 1, before[1])
    with gateway.client(acme.secret) as client:
        assert client.get("/v1/models").status_code == 200
    assert asked()[0] == before[0] + 2  # the counter does count


@SURFACES
def test_an_unknown_model_is_404(gateway, acme, call):
    path, body = call
    if path.startswith("/v2"):
        path = "/v2/models/nothing/infer"
    else:
        body = body | {"model": "nothing"}
    with gateway.client(acme.secret) as client:
        answer = client.post(path, json=body)
    assert answer.status_code == 404
    assert "nothing" in told(answer)


@SURFACES
def test_a_body_that_is_not_a_json_object_is_400(gateway, acme, call):
    with gateway.client(acme.secret) as client:
        for content in (b"", b"{", b"[]", b"nonsense", b"\xff\xfe", b"[" * 10_000):
            answer = client.post(call[0], content=content)
            assert answer.status_code == 400, content[:20]
            assert "JSON" in told(answer)
    assert gateway.frames() == []


def test_a_wrong_parameter_is_named(gateway, acme):
    """Each rule has its row in the parsers' own tests; here: it reaches the caller."""
    with gateway.client(acme.secret) as client:
        for call, change, field in (
            (CHAT, {"lora_path": "/etc/passwd"}, "lora_path"),
            (CHAT, {"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
            (CHAT, {"model": "identity"}, "model"),
            (EMBED, {"dimensions": 7}, "dimensions"),
            (EMBED, {"model": "tiny-lm"}, "model"),
        ):
            answer = client.post(call[0], json=call[1] | change)
            assert answer.status_code == 400, change
            assert answer.json()["error"]["param"] == field
            told(answer)


def test_dimensions_the_model_has_not_cost_nothing(gateway, acme):
    with gateway.client(acme.secret) as client:
        assert client.post(EMBED[0], json=EMBED[1] | {"dimensions": 384}).status_code == 200
        answer = client.post(EMBED[0], json=EMBED[1] | {"dimensions": 7})
    assert "384" in told(answer)
    served, refused = gateway.settles()
    assert (served.status, served.requests) == ("ok", 1)
    assert (refused.status, refused.requests, refused.cost_nano) == ("error", 0, 0)


def test_a_model_of_another_surface_is_refused_with_the_way_to_it(gateway, acme):
    with gateway.client(acme.secret) as client:
        for model, way in (("tiny-lm", "/v1/chat"), ("all-minilm-l6-v2", "/v1/embeddings")):
            answer = client.post(f"/v2/models/{model}/infer", json=INFER[1])
            assert answer.status_code == 400
            assert way in told(answer)
    assert gateway.frames() == []


def test_what_could_reach_beyond_an_infer_request_is_refused(gateway, acme):
    with gateway.client(acme.secret) as client:
        answer = client.post(INFER[0], json=INFER[1] | {"parameters": {"shared_memory_region": 1}})
    assert answer.status_code == 400
    assert "shared_memory_region" in told(answer)
    assert gateway.frames() == []


def test_a_name_that_comes_twice_reaches_triton_once(gateway, acme, triton):
    """Triton reads the first of two equal names, our parser the last."""
    twice = (
        b'{"inputs":[{"name":"INPUT0","shape":[1],"datatype":"FP32","parameters":'
        b'{"shared_memory_region":"x","shared_memory_byte_size":4},"parameters":{},"data":[7]}]}'
    )
    direct = httpx.post(triton.http_url + INFER[0], content=twice)
    assert "shared_memory_region" in direct.json()["error"]  # as it came, it is read
    with gateway.client(acme.secret) as client:
        answer = client.post(INFER[0], content=twice)
    assert (answer.status_code, answer.json()["outputs"][0]["data"]) == (200, [7])


def test_a_wrong_binary_header_is_400(gateway, acme):
    with gateway.client(acme.secret) as client:
        for length in ("x", "-1", "", "999999", "9" * 40):
            headers = {"Inference-Header-Content-Length": length}
            answer = client.post(INFER[0], json=INFER[1], headers=headers)
            assert answer.status_code == 400
            assert "Inference-Header-Content-Length" in told(answer)


def test_what_is_not_a_route_does_not_exist(gateway):
    for method, path, status in (
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v2/models/identity/infer", 405),
        ("POST", "/v1/nothing", 404),
        ("POST", "/v2/repository/models/identity/unload", 404),
        ("GET", "/v2/systemsharedmemory/status", 404),
        ("POST", "/v2/logging", 404),
        ("POST", "/v2/trace/setting", 404),
        ("POST", "/v2/models/stats", 405),
        ("GET", "/v2/models/identity/generate", 405),
        ("POST", "/v2/models/identity/versions/x/generate", 404),
        ("POST", "/v2/models/../identity/infer", 404),
        ("POST", "/v2/models/identity%2Fversions%2F1/infer", 404),
        ("GET", "/", 404),
    ):
        answer = httpx.request(method, gateway.url + path)
        assert answer.status_code == status, path
        assert told(answer)


def test_an_oversized_body_is_413(gateway, acme):
    with gateway.client(acme.secret) as client:
        answer = client.post(EMBED[0], content=b" " * (16 * 1024 * 1024 + 1))
    assert answer.status_code == 413
    assert "16 MB" in told(answer)


@SURFACES
def test_a_compressed_body_is_read_bounded_or_refused(gateway, acme, call):
    import gzip
    import json

    with gateway.client(acme.secret) as client:

        def post(content, encoding):
            return client.post(call[0], content=content, headers={"Content-Encoding": encoding})

        assert post(gzip.compress(json.dumps(call[1]).encode()), "gzip").status_code == 200
        refused = [
            (post(b"x", "br"), 415),
            (post(b"nonsense", "gzip"), 400),
            (post(gzip.compress(b" " * 100)[:-9], "gzip"), 400),
            (post(gzip.compress(b" " * (64 * 1024 * 1024)), "gzip"), 413),
        ]
    for answer, status in refused:
        assert answer.status_code == status
        assert told(answer)


def test_a_model_that_refuses_costs_nothing_and_is_recorded(gateway, acme):
    wrong = {"inputs": [{"name": "WRONG", "shape": [1], "datatype": "FP32", "data": [1]}]}
    with gateway.client(acme.secret) as client:
        answer = client.post(INFER[0], json=wrong)
    assert answer.status_code == 400
    assert "WRONG" in told(answer)
    (settled,) = gateway.settles()
    assert (settled.status, settled.cost_nano, settled.requests) == ("error", 0, 0)


ALL_CALLS = (CHAT, EMBED, INFER)


def test_triton_stopped_is_503(start_gateway, acme):
    gateway = start_gateway(f"http://127.0.0.1:{free_port()}")
    with gateway.client(acme.secret) as client:
        for path, body in ALL_CALLS:
            answer = client.post(path, json=body)
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert "Nothing was charged" in told(answer)
    settled = [(each.status, each.cost_nano) for each in gateway.settles()]
    assert settled == [("error", 0)] * 3


def test_redis_gone_is_503_never_allow(start_gateway, triton, acme):
    gateway = start_gateway(triton.http_url, ADMISSION_REDIS_URL="unix:///nonexistent.sock")
    with gateway.client(acme.secret) as client:
        for path, body in ALL_CALLS:
            answer = client.post(path, json=body)
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert told(answer)
    assert gateway.frames() == []


def test_postgres_gone_is_503(start_gateway, triton, acme):
    gateway = start_gateway(
        triton.http_url, GATEWAY_DATABASE_URL="postgresql://nobody@/none?host=/nonexistent"
    )
    with gateway.client(acme.secret) as client, ThreadPoolExecutor(3) as at_once:
        answers = at_once.map(lambda call: client.post(call[0], json=call[1]), ALL_CALLS)
        for answer in answers:
            assert answer.status_code == 503
            assert told(answer)
    assert gateway.frames() == []


@SURFACES
def test_a_revoked_key_is_refused_by_the_very_next_request(gateway, acme, call):
    with gateway.client(acme.secret) as client:
        assert client.post(call[0], json=call[1]).status_code == 200
        revoke_key(tenant_id=acme.id, key_id=acme.key_id)
        refused = client.post(call[0], json=call[1])
    assert refused.status_code == 401
    assert "revoked" in told(refused)


def test_a_suspended_organisation_is_told_why(gateway, acme):
    with gateway.client(acme.secret) as client:
        assert client.post(CHAT[0], json=CHAT[1]).status_code == 200
        set_standing(tenant_id=acme.id, standing="suspended", reason="invoice overdue")
        refused = client.post(CHAT[0], json=CHAT[1])
        assert refused.status_code == 403
        assert "invoice overdue" in told(refused)
        set_standing(tenant_id=acme.id, standing="active", reason="")
        wait_until(lambda: client.post(CHAT[0], json=CHAT[1]).status_code == 200, "being let in")


def test_a_flushed_redis_lets_nobody_in_under_an_old_policy(gateway, acme, redis_url):
    with gateway.client(acme.secret) as client:
        assert client.post(INFER[0], json=INFER[1]).status_code == 200
        revoke_key(tenant_id=acme.id, key_id=acme.key_id)
        with redis.Redis.from_url(redis_url) as admission:
            admission.flushall()
            admission.script_flush()
        assert client.post(INFER[0], json=INFER[1]).status_code == 401
        with redis.Redis.from_url(redis_url) as admission:
            assert admission.get(admission_keys.version(acme.id, acme.key_id)) is None


def test_the_sdks_raise_their_own_exceptions(gateway, acme):
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=unknown_key()) as client:
        with pytest.raises(openai.AuthenticationError) as refused:
            client.models.list()
        assert refused.value.code == "invalid_api_key"
    native = triton_http.InferenceServerClient(gateway.url.removeprefix("http://"))
    with pytest.raises(tritonclient.utils.InferenceServerException, match="API key"):
        native.infer("identity", [triton_http.InferInput("INPUT0", [1], "FP32")])
    native.close()


def test_a_head_without_end_is_refused_and_hung_up_on(gateway):
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as caller:
        caller.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX-Long: ")
        received = b""
        with contextlib.suppress(ConnectionError):
            for _ in range(40):
                caller.sendall(b"a" * 8192)
            while data := caller.recv(4096):
                received += data
    # What was sent after the refusal may reset the connection before it is read.
    assert received == b"" or received.startswith(b"HTTP/1.1 431 ")
    assert httpx.get(f"{gateway.url}/readyz").status_code == 200


def test_a_large_head_within_bounds_is_served_on_a_kept_connection(gateway, acme):
    with gateway.client(acme.secret) as client:
        for _ in range(3):
            answer = client.get("/v1/models", headers={"X-Long": "a" * 20_000})
            assert answer.status_code == 200


def test_the_log_has_a_line_per_request_and_no_secret(gateway, acme):
    body = CHAT[1] | {"messages": [{"role": "user", "content": "a private matter"}]}
    with gateway.client(acme.secret) as client:
        answers = [client.post(CHAT[0], json=each) for each in (body, body | {"surprise": 1})]
    names = [answer.headers["x-request-id"] for answer in answers]
    # Lines are written a few times a second, those of the test before this one, too.
    wait_until(lambda: all(name in gateway.log.read_text() for name in names), "the lines")
    text = gateway.log.read_text()
    assert acme.secret not in text
    assert "private matter" not in text
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    served, refused = [line for line in lines if line["request_id"] in names]
    assert [served["request_id"], refused["request_id"]] == names
    assert (served["status"], served["tenant_id"]) == (200, str(acme.id))
    assert served["cost_nano"] > 0
    assert (refused["status"], refused["code"]) == (400, "unknown_parameter")


def test_a_revoked_key_is_refused_what_came_on_sale_after_its_policy_was_held(gateway, acme):
    """The policy that has the model has the revocation, too."""

    def offer(active):
        Model.objects.filter(name="identity").update(is_active=active)
        recompile_everyone()

    offer(False)
    with gateway.client(acme.secret) as client:
        assert client.post(CHAT[0], json=CHAT[1]).status_code == 200
        assert client.post(INFER[0], json=INFER[1]).status_code == 404
        time.sleep(REFUSING_POLICY_AGE_S_MAX)
        offer(True)
        revoke_key(tenant_id=acme.id, key_id=acme.key_id)
        assert client.post(INFER[0], json=INFER[1]).status_code == 401
    assert len(gateway.admits()) == 1
