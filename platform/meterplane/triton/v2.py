"""Paths of the v2 protocol, built so that a model's name can only be a name.

`version` empty: the server's choice among the versions it has loaded.
"""

from functools import lru_cache
from typing import Literal
from urllib.parse import quote

Verb = Literal["", "infer", "generate", "generate_stream", "ready", "config", "stats"]

SERVER_LIVE = "/v2/health/live"
SERVER_READY = "/v2/health/ready"

PATHS_CACHED_MAX = 4096  # 4,096 x ~150 bytes


@lru_cache(PATHS_CACHED_MAX)
def model_path(model: str, verb: Verb = "", version: str = "") -> str:
    """`/v2/models/{model}[/versions/{version}][/{verb}]`. An empty `verb` is its metadata.

    Raises `ValueError` for a name that would be another path, and a version that is not a number.
    """
    if model in ("", ".", ".."):
        raise ValueError(f"{model!r} is not a model's name")
    if version and not (version.isascii() and version.isdigit()):
        raise ValueError(f"{version!r} is not a model's version: a number is")
    path = f"/v2/models/{quote(model, safe='')}"
    if version:
        path += f"/versions/{version}"
    return f"{path}/{verb}" if verb else path
