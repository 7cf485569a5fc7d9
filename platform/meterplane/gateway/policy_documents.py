"""Policies from their documents, sharing what is equal.

Most keys of an installation may use the same models at the same prices. Decoded one by one, 16,384
policies of 50 models would be 16,384 x 50 x ~700 bytes = 570 MB; here models whose documents are
equal to the byte (PostgreSQL writes `jsonb` in one form) are one object. A policy is frozen, and
so is a model: nobody can tell that it is shared.
"""

from collections import OrderedDict
from typing import Any

import msgspec

from meterplane.contracts.policy import KeyPolicy, ModelPolicy

MODELS_SHARED_MAX = (
    4096  # x ~1.3 kB, document and model = 5 MB; what is pushed out lives in its policies
)


def _with_raw_models() -> type[msgspec.Struct]:
    """`KeyPolicy` as the contract has it, but for its models: they stay bytes."""
    fields: list[Any] = []
    for each in msgspec.structs.fields(KeyPolicy):
        kind = dict[str, msgspec.Raw] if each.name == "models" else each.type
        if each.default is not msgspec.NODEFAULT:
            fields.append((each.name, kind, each.default))
        elif each.default_factory is not msgspec.NODEFAULT:
            fields.append((each.name, kind, msgspec.field(default_factory=each.default_factory)))
        else:
            fields.append((each.name, kind))
    return msgspec.defstruct("KeyPolicyDocument", fields, kw_only=True)


_documents = msgspec.json.Decoder(_with_raw_models())
_models = msgspec.json.Decoder(ModelPolicy)


class PolicyDocuments:
    """Decodes policies for one worker."""

    def __init__(self) -> None:
        self._shared: OrderedDict[bytes, ModelPolicy] = OrderedDict()

    def decode(self, document: bytes | str) -> KeyPolicy:
        """Raises `msgspec.DecodeError` when the document is not a version-1 policy."""
        values: dict[str, Any] = msgspec.structs.asdict(_documents.decode(document))
        models = {}
        for name, raw in values["models"].items():
            model = self._model(bytes(raw))
            # One text for the name of all who share the model.
            models[model.name if model.name == name else name] = model
        values["models"] = models
        return KeyPolicy(**values)

    def _model(self, raw: bytes) -> ModelPolicy:
        model = self._shared.get(raw)
        if model is not None:
            self._shared.move_to_end(raw)
            return model
        model = self._shared[raw] = _models.decode(raw)
        if len(self._shared) > MODELS_SHARED_MAX:
            self._shared.popitem(last=False)
        return model
