"""`ranked`: waits until the file GATE is there, and says how many requests it had served.

That it waits is told by a file too: GATE with `.reached` behind it.
"""

import time
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

GATE_S_MAX = 60.0


class TritonPythonModel:
    """One instance."""

    def initialize(self, args: dict) -> None:
        """Nothing was served yet."""
        self._served = 0

    def execute(self, requests: list) -> list:
        """One answer each."""
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        gate = pb_utils.get_input_tensor_by_name(request, "GATE").as_numpy().flat[0].decode()
        if gate:
            Path(f"{gate}.reached").touch()
        until = time.monotonic() + GATE_S_MAX
        while gate and not Path(gate).exists() and time.monotonic() < until:
            time.sleep(0.01)
        self._served += 1
        served = np.array([[self._served]], np.int32)
        return pb_utils.InferenceResponse([pb_utils.Tensor("SERVED", served)])
