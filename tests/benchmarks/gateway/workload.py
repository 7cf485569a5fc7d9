"""What is asked: a chat completion of about 300 bytes, plain or streamed, of models that all are
the one upstream. A model's name tells it how to stream (see `instruments/upstream.c`)."""

import json
from dataclasses import dataclass
from pathlib import Path

PATH = "/v1/chat/completions"
TOKENS_IN = 40  # what the upstream reports for any prompt
TOKENS_OUT = 20
MODELS = ("bench", "bench-every-2000", "bench-burst-8", "bench-every-5000000")
MESSAGES = [
    {
        "role": "system",
        "content": "You are a helpful assistant that answers in one short sentence.",
    },
    {
        "role": "user",
        "content": "Describe the quick brown fox and what it does near the river bank today,"
        " in plain words please, and be brief about it.",
    },
]


@dataclass(frozen=True, slots=True)
class Request:
    """One request that is sent again and again."""

    name: str
    model: str
    tokens_out: int
    stream: bool

    def write(self, folder: Path) -> Path:
        """The file that holds its body."""
        document = {
            "model": self.model,
            "messages": MESSAGES,
            "max_tokens": self.tokens_out,
            "temperature": 0,
        }
        if self.stream:
            document |= {"stream": True, "stream_options": {"include_usage": True}}
        path = folder / f"{self.name}.json"
        path.write_text(json.dumps(document))
        return path


CHAT = Request("chat", "bench", TOKENS_OUT, stream=False)
# One chunk each 2 ms: chunks cannot arrive together, and a stream lasts 38 ms.
PACED = Request("paced", "bench-every-2000", TOKENS_OUT, stream=True)
# Long, so that relaying is measured and not admission.
RELAYED = Request("relayed", "bench", 240, stream=True)
# The same, eight chunks in one write: the upstream and the client cost less than the gateway.
RELAYED_IN_BURSTS = Request("relayed-in-bursts", "bench-burst-8", 240, stream=True)
# A chunk each 5 s, 15 s in all.
IDLE = Request("idle", "bench-every-5000000", 4, stream=True)
IDLE_LASTS_S = 15.0
STREAM_TOKENS_OUT = frozenset(each.tokens_out for each in (PACED, RELAYED, IDLE))
