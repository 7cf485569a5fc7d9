"""`identity`: OUTPUT0 is INPUT0. Computes nothing, so that a benchmark measures the path to it."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance. Requests that wait together are answered in one call."""

    def execute(self, requests: list) -> list:
        return [
            pb_utils.InferenceResponse(
                [
                    pb_utils.Tensor(
                        "OUTPUT0", pb_utils.get_input_tensor_by_name(r, "INPUT0").as_numpy()
                    )
                ]
            )
            for r in requests
        ]
