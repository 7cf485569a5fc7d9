"""`every_type`: OUT_x is IN_x, for each input that came; it breaks on the text `break`."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance."""

    def execute(self, requests: list) -> list:
        """One answer a request."""
        return [self._answer(request) for request in requests]

    @staticmethod
    def _answer(request):
        text = pb_utils.get_input_tensor_by_name(request, "IN_BYTES")
        if text is not None and b"break" in text.as_numpy():
            raise ValueError("it broke")
        wanted = request.requested_output_names()
        outputs = []
        for tensor in request.inputs():
            name = "OUT" + tensor.name().removeprefix("IN")
            if name not in wanted:
                continue
            if name == "OUT_BF16":  # numpy has no such type
                outputs.append(pb_utils.Tensor.from_dlpack(name, tensor.to_dlpack()))
            else:
                outputs.append(pb_utils.Tensor(name, tensor.as_numpy()))
        return pb_utils.InferenceResponse(outputs)
