"""What callers can ask of a model, by how it is read. Knows nothing of any one model.

Text models answer chat and completion calls, embedding models embedding calls, tensor models tensor
calls only. An OpenAI-compatible server may hold either of the first two: one that may write nothing
is an embedding model.
"""

from typing import Literal

from meterplane.catalog.entry import CatalogEntry

Surface = Literal["text", "embedding", "tensor"]

# The gateway writes the prompt of these itself, from the messages and a chat template.
PROMPTED_ADAPTERS: frozenset[str] = frozenset({"vllm", "tensorrtllm", "llmapi"})


def surface_of(entry: CatalogEntry) -> Surface:
    """What a model is asked for."""
    if entry.adapter in PROMPTED_ADAPTERS:
        return "text"
    if entry.adapter == "openai":
        return "text" if entry.output_tokens_max else "embedding"
    return "embedding" if entry.adapter == "embedding" else "tensor"
