"""`add_sub`: the sum and the difference of two tensors, those of them that are asked for."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance."""

    def execute(self, requests: list) -> list:
        """One answer a request."""
        return [self._answer(request) for request in requests]

    @staticmethod
    def _answer(request):
        first, second = (
            pb_utils.get_input_tensor_by_name(request, name).as_numpy()
            for name in ("INPUT0", "INPUT1")
        )
        made = {"OUTPUT0": first + second, "OUTPUT1": first - second}
        wanted = request.requested_output_names()
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, made[name]) for name in made if name in wanted]
        )
