"""`several`: COUNT answers to one request; the n-th says TEXT and the numbers up to n."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance, decoupled: answers leave through the request's sender."""

    def execute(self, requests: list) -> None:
        """Any number of answers a request."""
        for request in requests:
            self._answer(request)

    @staticmethod
    def _answer(request):
        sender = request.get_response_sender()
        text, count = (
            pb_utils.get_input_tensor_by_name(request, name).as_numpy()
            for name in ("TEXT", "COUNT")
        )
        for number in range(count[0]):
            word = pb_utils.Tensor("WORD", text)
            numbers = pb_utils.Tensor("NUMBER", np.arange(number + 1, dtype=np.int32))
            sender.send(pb_utils.InferenceResponse([word, numbers]))
        fail = pb_utils.get_input_tensor_by_name(request, "FAIL")
        if fail is not None and fail.as_numpy()[0]:
            failure = pb_utils.TritonError("it was asked to fail")
            sender.send(pb_utils.InferenceResponse(error=failure))
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
