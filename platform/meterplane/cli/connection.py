"""One address and one key: requests, and every way in which they fail, in a sentence each.

Guarantees: a key goes to the address that was given and follows no redirect; whatever answers,
there is no stack trace.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn, Self

import httpx
import typer

from meterplane.cli.say import fail

TIMEOUT_S = 60.0
Params = Sequence[tuple[str, str]]

Url = Annotated[
    str,
    typer.Option(
        "--url", envvar="METERPLANE_URL", help="The gateway's address.", show_default=False
    ),
]
Key = Annotated[
    str,
    typer.Option(
        "--api-key",
        envvar="METERPLANE_API_KEY",
        help="An API key. Better in the environment: a command line is seen by others.",
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True)
class Reached:
    """An answer, whatever its status; `json` is None where its body is none."""

    status: int
    content: bytes
    json: Any
    headers: Mapping[str, str]


class Connection:
    """A server, and the key that is presented to it."""

    def __init__(self, url: str, key: str) -> None:
        self.url = checked(url)
        if not key:
            fail("Give an API key: set METERPLANE_API_KEY, or --api-key.")
        self._client = client({"Authorization": f"Bearer {_of_ascii(key)}"})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str, params: Params = ()) -> Any:
        """The JSON of an answer. Ends the command with the reason where there is none."""
        reached = self.ask("GET", path, params=params)
        if reached.status != 200:
            fail(problem(reached))
        if reached.json is None:
            fail(f"What answers at {self.url}{path} is not Meterplane: it sent no JSON.")
        return reached.json

    def ask(
        self,
        method: str,
        path: str,
        params: Params = (),
        content: bytes | None = None,
        content_type: str = "application/json",
    ) -> Reached:
        """An answer of any status but 401. Ends the command where nothing answers."""
        try:
            reached = self.try_once(method, path, params, content, content_type)
        except httpx.HTTPError as away:
            unreachable(self.url, away)
        if reached.status == 401:
            fail(f"{problem(reached)} (asked at {self.url})")
        return reached

    def try_once(
        self,
        method: str,
        path: str,
        params: Params = (),
        content: bytes | None = None,
        content_type: str = "application/json",
    ) -> Reached:
        """As `ask`. Raises `httpx.HTTPError` where nothing answers."""
        answer = self._client.request(
            method,
            self.url + path,
            params=list(params),
            content=content,
            headers={"Content-Type": content_type} if content is not None else {},
        )
        return reached_of(answer)


def client(headers: Mapping[str, str]) -> httpx.Client:
    """A client that waits in bounds and follows nothing."""
    return httpx.Client(headers=dict(headers), timeout=TIMEOUT_S, follow_redirects=False)


def reached_of(answer: httpx.Response) -> Reached:
    """The answer without its library."""
    try:
        found = answer.json()
    except ValueError:  # also UTF-8's
        found = None
    return Reached(answer.status_code, answer.content, found, answer.headers)


def checked(url: str) -> str:
    """An address without its last slash. Ends the command where it is none."""
    if not url:
        fail("Say where Meterplane is: set METERPLANE_URL, or --url.")
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query:
        fail(f"{url!r} is no address; write https://gateway.example.com.")
    return url.rstrip("/")


def unreachable(url: str, away: httpx.HTTPError) -> NoReturn:
    """End the command: nothing answers there."""
    why = str(away) or type(away).__name__
    fail(f"{url} cannot be reached ({why}). Is the address right, and the server up?")


def problem(reached: Reached) -> str:
    """What an error says, in whichever shape it came: OpenAI's, RFC 9457's, or none."""
    body = reached.json if isinstance(reached.json, dict) else {}
    error = body.get("error")
    said = error.get("message") if isinstance(error, dict) else error
    for text in (said, body.get("detail")):
        if isinstance(text, str) and text:
            return f"{text} (HTTP {reached.status})"
    return f"The server answered HTTP {reached.status} and no reason."


def _of_ascii(key: str) -> str:
    key = key.strip()
    if not key.isascii() or not key.isprintable():
        fail("The API key has characters no key has; copy it again.")
    return key
