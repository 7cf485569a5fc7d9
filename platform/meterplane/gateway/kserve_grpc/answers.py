"""A server's responses to one request: counted, and made what the caller may see.

A response that needs no change is passed on as the bytes it came as.
"""

from meterplane.gateway import errors
from meterplane.gateway.adapters.engine import Reader
from meterplane.gateway.adapters.generate import reader_of
from meterplane.gateway.kserve_grpc import text_tensors
from meterplane.gateway.kserve_grpc.infer_work import FINAL, InferWork
from meterplane.gateway.kserve_grpc.messages import Message
from meterplane.gateway.run import Run
from meterplane.gateway.surfaces.generate_keys import KEYS
from meterplane.kernel.errors import CallerError


class Answers:
    """Of one request to one server; `hidden` are outputs that the caller did not ask for."""

    __slots__ = ("_hidden", "_reader", "_run")

    def __init__(self, run: Run, reader: Reader | None, hidden: list[str]) -> None:
        self._run = run
        self._reader = reader
        self._hidden = hidden

    def read(self, response: Message) -> bool:
        """Count one response and change it in place; True if anything was changed.

        Raises `WorldError` when a text engine's response cannot be measured.
        """
        run = self._run
        changed = False
        if response.outputs:
            run.served = True
            run.tensor_bytes_out += sum(map(len, response.raw_output_contents))
            if self._reader is not None:
                self._count(self._reader, response)
                text_tensors.hide(response, self._hidden)
                changed = bool(self._hidden)
        if run.model.name != run.target.upstream:
            response.model_name = run.model.name
            changed = True
        return changed

    def _count(self, reader: Reader, response: Message) -> None:
        try:
            event = text_tensors.event(response)
        except CallerError:
            raise errors.unmeasurable() from None
        reader.read(event)
        self._run.tokens_in, self._run.tokens_out = reader.tokens_in, reader.tokens_out

    def finish(self) -> None:
        """The answer is whole: its counts are final."""
        self._run.served = True  # a model may answer with nothing
        if self._reader is not None:
            self._reader.finish()
            self._run.tokens_out = self._reader.tokens_out


async def answers_to(run: Run, work: InferWork, hidden: list[str]) -> Answers:
    """A counter for the run's model."""
    text = run.model.adapter in KEYS
    return Answers(run, await reader_of(run, work.text) if text else None, hidden)


def is_final(response: Message) -> bool:
    """True if the server marked this as the request's last response."""
    return FINAL in response.parameters and bool(response.parameters[FINAL].bool_param)
