"""Commands and code a customer can paste, with this installation's own address in them."""

import json
from dataclasses import dataclass

from django.conf import settings

from meterplane.catalog.entry import CatalogEntry, entry_of
from meterplane.catalog.queries import active_models
from meterplane.catalog.surfaces import Surface, surface_of

PLACEHOLDER = "$METERPLANE_API_KEY"


@dataclass(frozen=True, slots=True)
class Snippet:
    """One tab of the quickstart."""

    name: str
    label: str
    text: str


def quickstart() -> list[Snippet]:
    """A first call by curl, by the OpenAI SDK and, where a model can, as a stream."""
    embedding, chat = _of("embedding"), _of("text")
    found = [Snippet("curl", "curl", curl())]
    if embedding:
        found.append(Snippet("python", "Python", _python_embedding(embedding.name)))
    if chat:
        found.append(Snippet("stream", "Streaming", _python_stream(chat.name)))
    return found


def curl(secret: str = PLACEHOLDER) -> str:
    """A first call from a shell, with a key in place or read from the environment."""
    embedding, chat = _of("embedding"), _of("text")
    body: dict[str, object]
    if embedding:
        path, body = "embeddings", {"model": embedding.name, "input": "Hello, world"}
    elif chat:
        messages = [{"role": "user", "content": "Hello"}]
        path, body = "chat/completions", {"model": chat.name, "messages": messages}
    else:
        return f'curl {_base_url()}/models \\\n  -H "Authorization: Bearer {secret}"'
    return (
        f"curl {_base_url()}/{path} \\\n"
        f'  -H "Authorization: Bearer {secret}" \\\n'
        f'  -H "Content-Type: application/json" \\\n'
        f"  -d '{json.dumps(body)}'"
    )


def _base_url() -> str:
    return f"{settings.PUBLIC_GATEWAY_URL}/v1"


def _of(surface: Surface) -> CatalogEntry | None:
    entries = (entry_of(model) for model in active_models())
    return next((each for each in entries if surface_of(each) == surface), None)


def _client() -> str:
    return (
        "import os\nfrom openai import OpenAI\n\n"
        "client = OpenAI(\n"
        f'    base_url="{_base_url()}",\n'
        '    api_key=os.environ["METERPLANE_API_KEY"],\n'
        ")\n"
    )


def _python_embedding(model: str) -> str:
    return (
        f"{_client()}answer = client.embeddings.create(\n"
        f'    model="{model}",\n    input="Hello, world",\n)\n'
        "print(len(answer.data[0].embedding))"
    )


def _python_stream(model: str) -> str:
    return (
        f"{_client()}stream = client.chat.completions.create(\n"
        f'    model="{model}",\n    stream=True,\n'
        '    messages=[{"role": "user", "content": "Hello"}],\n)\n'
        "for chunk in stream:\n"
        "    for choice in chunk.choices:\n"
        '        print(choice.delta.content or "", end="")'
    )
