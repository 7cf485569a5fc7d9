"""The same requests to the real Triton and through the gateway: the same answers, to the byte.

Compared are the status, the headers a client acts on, and the body, with the model's own name put
in for the one it is sold by. Where the gateway answers otherwise on purpose, the one table below
says how and why; a row states exactly what answers it allows, and is refused where nothing differs.
"""

import gzip
import http.client
import json
import random
import secrets
import zlib
from dataclasses import dataclass, replace
from typing import Literal

import pytest

from tests.gateway.differential import at_random, compression, generated, models, tensors
from tests.gateway.differential.case import LENGTH, Case
from tests.gateway.kinds import SOLD_AS

pytestmark = pytest.mark.django_db(transaction=True)

CURATED = (models, tensors, compression, generated)
CASES_MIN = 300
RANDOM_CASES = 300
SPOILT_CASES = 2000
SHOWN_MAX = 12

Words = Literal["same", "ours", "as if", "own"]


@dataclass(frozen=True)
class Difference:
    """Triton answers `direct`, the gateway `ours`; `words` tells what body that is.

    `same`: Triton's error, byte for byte; only the status, or what it is labelled as, is another.
    `ours`: an error in our own words. `as if`: Triton's answer to the case's `as_if`.
    `own`: what the gateway says of itself, checked elsewhere.
    Every error of ours is JSON with one member, `error`, and says that it is JSON.
    """

    direct: int
    ours: int
    words: Words
    why: str


DIFFERENCES = {
    # Applied by rule (see `expected`), to any case.
    "label": Difference(0, 0, "same", "an error is JSON and says so; Triton calls some text/plain"),
    "caller's fault": Difference(
        500, 400, "same", "what a caller sent and nobody can read is not the server's failure"
    ),
    # Applied to the cases that name them.
    "unreadable": Difference(
        500, 400, "ours", "refused before it is admitted or forwarded, by our own reader"
    ),
    "unreadable to us": Difference(
        200, 400, "ours", "JSON has no such value; a reader that has is not one to admit by"
    ),
    "nothing": Difference(
        200, 400, "ours", "no body and no header: Triton takes it for a raw tensor of no elements"
    ),
    "refused either way": Difference(400, 400, "ours", "refused before it is forwarded"),
    "head length": Difference(
        200, 400, "ours", "Triton reads digits up to the first other sign; we say what is wrong"
    ),
    "twice": Difference(
        200, 200, "as if", "of a name that comes twice the last is checked, so the last is sent"
    ),
    "twice in generate": Difference(
        400, 200, "as if", "of a name that comes twice the last is checked, so the last is sent"
    ),
    "not allowed": Difference(
        200, 400, "ours", "only parameters that cannot reach beyond the request are forwarded"
    ),
    "shared memory": Difference(
        404, 400, "ours", "memory of the server's machine is nobody's to name"
    ),
    "unknown model": Difference(
        404, 404, "ours", "a model a key may not use cannot be told from one that is not there"
    ),
    "unknown model ready": Difference(400, 404, "ours", "as for its other routes"),
    "server": Difference(200, 200, "own", "what the gateway is, and what it can do"),
    "method": Difference(405, 405, "ours", "says which method to use"),
    "nowhere": Difference(404, 404, "ours", "says what there is"),
    "control": Difference(200, 404, "ours", "the server's own routes do not exist for callers"),
    "control refused": Difference(400, 404, "ours", "as above, whatever the body"),
    "control unavailable": Difference(503, 404, "ours", "as above, whatever Triton's settings"),
    "statistics": Difference(200, 403, "ours", "they count all tenants together"),
    "model failed": Difference(
        500, 502, "ours", "500 is our own failure; the paths of the model's files stay behind"
    ),
    "unsupported": Difference(501, 400, "same", "the request is wrong here, and stays so"),
    "encoding": Difference(501, 415, "ours", "the status that HTTP has for it"),
    "encoding in capitals": Difference(501, 200, "as if", "in HTTP a coding's case means nothing"),
    "encoding in generate": Difference(400, 200, "as if", "read as any other body"),
    "not whole": Difference(
        200, 400, "ours", "Triton takes what it could unpack; half a tensor is not what was meant"
    ),
    "error in a success": Difference(
        200, 400, "same", "Triton has begun its answer when it finds out; we have not"
    ),
    "error as an event": Difference(
        400, 400, "same", "before the first event an error is an ordinary one, not an event"
    ),
}


@dataclass(frozen=True)
class Answer:
    """What is compared."""

    status: int
    content_type: str | None
    json_bytes: str | None
    encoding: str | None
    body: bytes


def ask(url: str, case: Case, model: str, **headers: str) -> Answer:
    """One request, with nothing in it that the case does not say."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    connection.putrequest(case.method, case.path.format(model), skip_accept_encoding=True)
    for name, value in {**case.headers, **headers, "Content-Length": str(len(case.body))}.items():
        connection.putheader(name, value)
    connection.endheaders(case.body)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    encoding = answer.getheader("content-encoding")
    if encoding:
        # How well a library packs is its own affair; what it unpacks to is not.
        body = gzip.decompress(body) if encoding == "gzip" else zlib.decompress(body)
    told = (answer.getheader(name) for name in ("content-type", LENGTH))
    return Answer(answer.status, *told, encoding, body)


# Where Triton says a model's name. A text of the same letters in a tensor or an id stays.
OF_ANSWERS = ('"model_name":"{}"', '{{"name":"{}","versions"')
OF_ERRORS = ("model: '{}'", "for '{}'", "model '{}'", "in '{}' model")


def in_our_names(answer: Answer, case: Case) -> Answer:
    """Triton's answer with the name the model is sold by."""
    here, there = SOLD_AS[case.model], case.model
    body = answer.body
    for form in OF_ANSWERS if answer.status == 200 else OF_ERRORS:
        body = body.replace(form.format(there).encode(), form.format(here).encode())
    json_bytes = answer.json_bytes
    if json_bytes is not None:
        json_bytes = str(int(json_bytes) + len(body) - len(answer.body))
    return replace(answer, body=body, json_bytes=json_bytes)


def error_of(body: bytes) -> str | None:
    """The text of an error that has the one right form."""
    try:
        document = json.loads(body)
    except ValueError:
        return None
    if isinstance(document, dict) and set(document) == {"error"}:
        return document["error"] if isinstance(document["error"], str) else None
    return None


def rule_of(direct: Answer) -> str:
    """The difference that holds for every request, if one does for this answer."""
    text = error_of(direct.body) or ""
    if direct.status == 500 and text.startswith(("Unable to ", "failed to parse the request")):
        return "caller's fault"
    return "label" if direct.status >= 400 and direct.content_type == "text/plain" else ""


def problem_with(direct: Answer, ours: Answer, key: str, as_if: Answer | None) -> str:
    """What is wrong with our answer; empty: nothing."""
    if not key:
        return "" if ours == direct else "differs, and no row of the table says why"
    if ours == direct:
        return f"does not differ, and the row {key!r} says that it does"
    row = DIFFERENCES[key]
    if key != "label" and (direct.status, ours.status) != (row.direct, row.ours):
        return f"the row {key!r} is of {row.direct} and {row.ours}"
    if key == "label" and direct.status != ours.status:
        return "another status"
    if row.words == "as if":
        return "" if ours == as_if else f"not as if: {as_if}"
    if row.words == "own":
        return "" if ours.status == 200 else "not served"
    plain = (ours.content_type, ours.json_bytes, ours.encoding)
    if plain != ("application/json", None, None) or error_of(ours.body) is None:
        return "not the form of an error"
    said = direct.body
    if key == "error as an event":
        said = said.removeprefix(b"data: ").removesuffix(b"\n\n")
    if (row.words == "same") != (error_of(ours.body) == error_of(said)):
        return f"its words are not {'the server' if row.words == 'same' else 'our'}'s"
    return ""


def test_the_gateway_answers_as_triton_does(kinds_gateway, kinds_triton, kinds_tenant):
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    curated = [case for about in CURATED for case in about.cases()]
    cases = [*curated, *at_random.cases(random.Random(seed), RANDOM_CASES)]
    assert len(curated) >= CASES_MIN
    key = {"Authorization": f"Bearer {kinds_tenant.secret}"}
    used, wrong = set(), []
    for case in cases:
        direct = in_our_names(ask(kinds_triton.http_url, case, case.model), case)
        ours = ask(kinds_gateway.url, case, SOLD_AS[case.model], **key)
        as_if = case.as_if and in_our_names(
            ask(kinds_triton.http_url, case.as_if, case.as_if.model), case.as_if
        )
        difference = case.difference or rule_of(direct)
        used.add(difference)
        if problem := problem_with(direct, ours, difference, as_if):
            wrong.append(f"{problem}\n  {case}\n  direct {direct}\n  ours   {ours}")
    print(f"{len(cases)} requests, {len(wrong)} wrong")
    assert not wrong, f"{len(wrong)} of {len(cases)}:\n" + "\n".join(wrong[:SHOWN_MAX])
    assert used - {""} == set(DIFFERENCES), "a row of the table that nothing needs"


def test_the_gateway_says_what_it_is(kinds_gateway):
    told = json.loads(ask(kinds_gateway.url, Case("GET", "/v2"), "").body)
    assert told["name"] == "meterplane"
    assert "binary_tensor_data" in told["extensions"]
    assert not any("shared_memory" in each or "repository" in each for each in told["extensions"])


def test_only_a_failing_model_is_a_failure_of_ours():
    """No row of the table turns a caller's fault into a 5xx, and none is free of a reason."""
    failing = {name for name, row in DIFFERENCES.items() if row.ours >= 500}
    assert failing == {"model failed"}
    assert all(len(row.why) > 15 for row in DIFFERENCES.values())


def test_a_spoilt_request_is_never_understood_otherwise_than_triton_would(
    kinds_gateway, kinds_triton, kinds_tenant
):
    """Bytes flipped, dropped, doubled and exchanged anywhere in a body.

    The gateway may refuse what Triton takes. What the gateway takes Triton takes, to the same
    answer: two readers who see two requests in the same bytes are how a check is walked around.
    Of a name that comes twice the gateway checks and sends the last (see the table).
    """
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    key = {"Authorization": f"Bearer {kinds_tenant.secret}"}
    served, wrong = 0, []
    for case in at_random.spoilt(chance, SPOILT_CASES):
        ours = ask(kinds_gateway.url, case, SOLD_AS[case.model], **key)
        if 400 <= ours.status < 500:
            continue
        sent = at_random.once(case)
        direct = in_our_names(ask(kinds_triton.http_url, sent, case.model), case)
        served += 1
        if ours != direct:
            wrong.append(f"{case}\n  direct {direct}\n  ours   {ours}")
    print(f"{served} of {SPOILT_CASES} were served")
    assert not wrong, f"{len(wrong)} of {SPOILT_CASES}:\n" + "\n".join(wrong[:SHOWN_MAX])
    assert served > SPOILT_CASES // 50
