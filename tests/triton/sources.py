"""The sample models' own modules, loaded from the repository as Triton loads them: by path."""

import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

REPOSITORY = Path(__file__).resolve().parents[2] / "infra/triton/model_repository"


@cache
def source(model: str, module: str) -> ModuleType:
    """`1/<module>.py` of a model. Not kept in `sys.modules` under its short name."""
    path = REPOSITORY / model / "1" / f"{module}.py"
    name = f"sample_model_{module}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded  # dataclasses look their module up
    spec.loader.exec_module(loaded)
    return loaded
