"""Requests about the server and its models, and to routes that are not there."""

from collections.abc import Iterator

from tests.gateway.differential.case import PAIR, TWO, Case, encoded


def cases() -> Iterator[Case]:
    """Metadata, health, versions, and what does not exist."""
    yield Case("GET", "/v2", difference="server")
    for probe in ("live", "ready"):
        yield Case("GET", f"/v2/health/{probe}")
        yield Case("POST", f"/v2/health/{probe}", difference="method")
    for model in ("identity", "add_sub", "every_type", "several", "tiny-lm"):
        yield Case("GET", "/v2/models/{}", model=model)
        yield Case("GET", "/v2/models/{}/ready", model=model)
        yield Case("GET", "/v2/models/{}/versions/1/ready", model=model)
        yield Case("GET", "/v2/models/{}/versions/1", model=model)
        yield Case("GET", "/v2/models/{}/versions/9", model=model)
        yield Case("GET", "/v2/models/{}/versions/9/ready", model=model)
        yield Case("POST", "/v2/models/{}/ready", model=model, difference="method")
        yield Case("GET", "/v2/models/{}/infer", model=model, difference="method")
    yield Case("GET", "/v2/models/{}/versions/3", model="add_sub")
    yield Case("GET", "/v2/models/{}", headers={"Accept-Encoding": "gzip"})
    for path in ("/v2/", "/v2/models/{}/", "/v2/nothing", "/v3", "/v2/models/{}/versions/x/ready"):
        yield Case("GET", path, difference="nowhere")
    yield Case("GET", "/v2/models/nothing", difference="unknown model")
    yield Case("GET", "/v2/models/nothing/ready", difference="unknown model ready")
    yield Case(
        "POST", "/v2/models/nothing/infer", encoded({"inputs": [TWO]}), difference="unknown model"
    )
    yield Case("POST", "/v2/models/nothing/generate", b"{}", difference="unknown model")
    yield Case("POST", "/v2/models/nothing/generate_stream", b"{}", difference="unknown model")
    for version in ("1", "3"):
        path = f"/v2/models/{{}}/versions/{version}/infer"
        yield Case("POST", path, encoded({"inputs": PAIR}), model="add_sub")
    for verb in ("infer", "generate", "generate_stream"):
        path = f"/v2/models/{{}}/versions/2/{verb}"
        yield Case(
            "POST", path, encoded({"inputs": PAIR} if verb == "infer" else {}), model="add_sub"
        )
    for method, path in (
        ("GET", "/v2/models/{}/config"),
        ("POST", "/v2/repository/index"),
        ("GET", "/v2/systemsharedmemory/status"),
        ("GET", "/v2/cudasharedmemory/status"),
        ("GET", "/v2/trace/setting"),
        ("GET", "/v2/models/{}/trace/setting"),
        ("GET", "/v2/logging"),
    ):
        yield Case(method, path, difference="control")
    for method, path in (
        ("POST", "/v2/repository/models/{}/load"),
        ("POST", "/v2/repository/models/{}/unload"),
    ):
        yield Case(method, path, b"{}", difference="control unavailable")
    for method, path in (
        ("POST", "/v2/systemsharedmemory/region/x/register"),
        ("POST", "/v2/cudasharedmemory/region/x/register"),
    ):
        yield Case(method, path, b"{}", difference="control refused")
    for path in ("/v2/models/stats", "/v2/models/{}/stats", "/v2/models/{}/versions/1/stats"):
        yield Case("GET", path, difference="statistics")
