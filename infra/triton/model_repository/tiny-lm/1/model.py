"""Triton's face of the generator: the vLLM backend's tensors, decoupled, cancellable.

As there: `num_input_tokens` is on every response; `num_output_tokens` is what this response adds,
one number per sequence; `finish_reason` is "None" until a sequence is done; without streaming the
answer starts with the prompt unless `exclude_input_in_output`. Tokens are also counted where the
vLLM backend counts them, in the server's metrics: what was computed, whoever has left meanwhile.
Triton's own counters do not tell: for a decoupled model a request ends for them as it begins.
"""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import numpy as np
import triton_python_backend_utils as pb_utils
from generator import Generator, Sampling

REQUESTS_AT_ONCE = 64


class TritonPythonModel:
    """One instance; each request runs on a thread of its own."""

    def initialize(self, args: dict) -> None:
        """Train on the corpus beside this file (milliseconds)."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._interval_s = int(parameters["token_interval_ms"]["string_value"]) / 1000
        self._generator = Generator(Path(__file__).with_name("corpus.txt"))
        self._threads = ThreadPoolExecutor(REQUESTS_AT_ONCE)
        labels = {"model": args["model_name"], "version": args["model_version"]}
        # Kept, because a counter is gone when its family is.
        self._families = [
            pb_utils.MetricFamily(
                name=name, description=meaning, kind=pb_utils.MetricFamily.COUNTER
            )
            for name, meaning in (
                ("vllm:prompt_tokens_total", "Prompt tokens read."),
                ("vllm:generation_tokens_total", "Tokens generated."),
            )
        ]
        self._prompt_tokens, self._generation_tokens = (
            family.Metric(labels=labels) for family in self._families
        )
        self._counting = Lock()

    def execute(self, requests: list) -> None:
        """Hand each request to a thread; answers go through its own sender."""
        for request in requests:
            self._threads.submit(self._answer, request, request.get_response_sender())

    def finalize(self) -> None:
        """Leave no thread waiting. Nothing runs any more: Triton calls this once it is idle."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _answer(self, request: object, sender: object) -> None:
        final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        try:
            self._generate(request, sender)
        except Exception as problem:  # the caller must hear of it, whatever it was
            error = pb_utils.TritonError(f"Error generating stream: {problem}")
            sender.send(pb_utils.InferenceResponse(error=error))
        finally:
            sender.send(flags=final)

    def _generate(self, request: object, sender: object) -> None:
        prompt = _text(request, "text_input")
        stream = _flag(request, "stream")
        exclude = _flag(request, "exclude_input_in_output", default=stream)
        if stream and not exclude:
            raise ValueError("When streaming, exclude_input_in_output = False is not allowed.")
        sampling = _sampling(_text(request, "sampling_parameters"))
        answer = _Answer(request, self._generator.count(prompt), sampling.n)
        try:
            self._run(sender, prompt, sampling, answer, stream)
        finally:
            with self._counting:  # two increments at once crash the server
                self._prompt_tokens.increment(answer.tokens_in)
                self._generation_tokens.increment(answer.tokens_out)
        if not stream:
            sender.send(answer.take("" if exclude else prompt))

    def _run(
        self, sender: object, prompt: str, sampling: Sampling, answer: "_Answer", stream: bool
    ) -> None:
        sequences = [self._generator.generate(prompt, sampling, i) for i in range(sampling.n)]
        while not answer.finished:
            for index, sequence in enumerate(sequences):
                if answer.reasons[index] == "None":
                    answer.add(index, *next(sequence))
            if stream:
                if sender.is_cancelled():
                    return
                sender.send(answer.take())
                time.sleep(self._interval_s)


class _Answer:
    """What was generated and not yet sent, per sequence."""

    def __init__(self, request: object, tokens_in: int, sequences: int) -> None:
        self._request = request
        self.tokens_in = tokens_in
        self.tokens_out = 0
        self.reasons = ["None"] * sequences
        self._texts = [""] * sequences
        self._tokens = [0] * sequences

    @property
    def finished(self) -> bool:
        return "None" not in self.reasons

    def add(self, index: int, text: str, tokens: int, reason: str) -> None:
        self._texts[index] += text
        self._tokens[index] += tokens
        self.tokens_out += tokens
        self.reasons[index] = reason

    def take(self, prefix: str = "") -> object:
        """The response for what is there, which is then forgotten."""
        texts = [(prefix + text).encode() for text in self._texts]
        tensors = [pb_utils.Tensor("text_output", np.array(texts, dtype=np.object_))]
        if _flag(self._request, "return_finish_reason"):
            reasons = [reason.encode() for reason in self.reasons]
            tensors.append(pb_utils.Tensor("finish_reason", np.array(reasons, dtype=np.object_)))
        if _flag(self._request, "return_num_input_tokens"):
            count = np.array([self.tokens_in], dtype=np.uint32)
            tensors.append(pb_utils.Tensor("num_input_tokens", count))
        if _flag(self._request, "return_num_output_tokens"):
            counts = np.array(self._tokens, dtype=np.uint32)
            tensors.append(pb_utils.Tensor("num_output_tokens", counts))
        self._texts = [""] * len(self._texts)
        self._tokens = [0] * len(self._tokens)
        return pb_utils.InferenceResponse(tensors)


def _sampling(text: str) -> Sampling:
    try:
        return Sampling.read(json.loads(text or "{}"))
    except json.JSONDecodeError as problem:
        raise ValueError(f"sampling_parameters is not JSON: {problem}") from None


def _text(request: object, name: str) -> str:
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return "" if tensor is None else bytes(tensor.as_numpy().ravel()[0]).decode()


def _flag(request: object, name: str, *, default: bool = False) -> bool:
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return default if tensor is None else bool(tensor.as_numpy().ravel()[0])
