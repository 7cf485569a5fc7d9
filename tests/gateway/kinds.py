"""Real Triton with models of every kind, and the names they are sold by.

Its models are those of `triton_models` here, and of the product's samples `identity` and `tiny-lm`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests import environment
from tests.conftest import ROOT, TritonServer, triton_server
from tests.gateway.deployments import model

# Upstream name -> what it is sold as: shorter, longer, of equal length, and the same.
SOLD_AS = {
    "identity": "same-numbers-back",
    "add_sub": "sums",
    "every_type": "every_kind",
    "several": "several",
    "tiny-lm": "tiny-words",
}
SAMPLES = ("identity", "tiny-lm")


@contextmanager
def triton_of_kinds() -> Iterator[TritonServer]:
    """Start it, and stop it in the end."""
    home = environment.HOME / "kinds-triton"
    repository = home / "models"
    repository.mkdir(parents=True)
    samples = ROOT / "infra" / "triton" / "model_repository"
    folders = [samples / name for name in SAMPLES]
    for folder in [*folders, *(Path(__file__).parent / "triton_models").iterdir()]:
        (repository / folder.name).symlink_to(folder)
    with triton_server(home.name, repository) as server:
        yield server


def on_sale() -> list[dict[str, Any]]:
    """The models of a catalog file."""
    return [
        model(sold, "vllm" if name == "tiny-lm" else "tensor", upstream=name)
        for name, sold in SOLD_AS.items()
    ]
