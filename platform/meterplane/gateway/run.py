"""One admitted request, from its ADMIT to its one SETTLE.

Guarantees: ADMIT is with the kernel before the request is forwarded; SETTLE is on the disk when
`settle` returns, and happens once however often it is asked for. What it cost is quantity times the
prices pinned at admission, and never more than was reserved.
"""

import asyncio
import logging
import time

from meterplane.contracts import usage
from meterplane.contracts.policy import ModelPolicy
from meterplane.gateway.admit import Admission, Admitter
from meterplane.gateway.surface import Work
from meterplane.journal.writer import JournalWriter
from meterplane.kernel import clock

log = logging.getLogger("meterplane.gateway")


class Run:
    """Counts of a running request. Fields are set by whoever measures them."""

    def __init__(
        self, work: Work, admission: Admission, journal: JournalWriter, admitter: Admitter
    ) -> None:
        self.work = work
        self.admission = admission
        self.model: ModelPolicy = work.model_policy(admission.policy)
        self.request_id = admission.request_id
        self.tokens_in = 0
        self.tokens_out = 0
        self.rows = work.bounds(self.model).rows
        self.bytes_out = 0
        self.served = False  # something of an answer was computed: the request itself is due
        self.provenance: usage.Provenance = "units"
        self.server = ""
        self._journal = journal
        self._admitter = admitter
        self._admitted_at_ms = clock.now_ms()
        self._began = time.monotonic()
        self._first_byte_ms = 0
        self.settled: usage.Settle | None = None
        self._finishing: asyncio.Future[None] | None = None

    @property
    def upstream_path(self) -> str:
        """Where on Triton this request goes. The model's name there is from the catalog."""
        model = f"/v2/models/{self.model.upstream}"
        if self.work.surface == "openai.chat":
            return f"{model}/generate_stream"
        return (
            f"{model}/versions/{self.work.version}/infer" if self.work.version else f"{model}/infer"
        )

    def begin(self) -> None:
        """Write ADMIT. Raises `JournalUnavailable`: then nothing may be forwarded."""
        policy, prices = self.admission.policy, self.model.prices
        self._journal.append(
            usage.Admit(
                request_id=self.request_id,
                tenant_id=policy.tenant_id,
                project_id=policy.project_id,
                key_id=policy.key_id,
                model=self.model.name,
                surface=self.work.surface,
                stream=self.work.stream,
                currency=policy.currency,
                price_version_id=policy.price_version_id,
                input_token_pico=prices.input_token_pico,
                output_token_pico=prices.output_token_pico,
                request_pico=prices.request_pico,
                reserved_nano=self.admission.reserved_nano,
                admitted_at_ms=self._admitted_at_ms,
            )
        )

    def first_byte(self) -> None:
        """The first of the answer arrived from the server."""
        if not self._first_byte_ms:
            self._first_byte_ms = max(1, self._elapsed_ms())

    def checkpoint(self) -> None:
        """Write the counts so far: what a crash would be settled from."""
        self._journal.append(
            usage.Checkpoint(
                request_id=self.request_id,
                tokens_in=self.tokens_in,
                tokens_out=self.tokens_out,
                bytes_out=self.bytes_out,
            )
        )

    async def settle(self, status: usage.Status, http_status: int) -> None:
        """Make the one SETTLE durable and give the rest of the reservation back.

        Raises `JournalUnavailable`: then the end of the answer must not leave.
        """
        if self.settled is not None:
            return
        self.settled = self._settlement(status, http_status)
        # Once it is with the kernel, a caller that is cancelled must not interrupt what follows.
        self._journal.append(self.settled)
        self._finishing = asyncio.ensure_future(self._finish(self.settled.cost_nano))
        await asyncio.shield(self._finishing)

    async def _finish(self, cost_nano: int) -> None:
        refund = asyncio.ensure_future(self._admitter.settle(self.admission, cost_nano))
        try:
            await self._journal.commit()
        finally:
            await refund

    def _settlement(self, status: usage.Status, http_status: int) -> usage.Settle:
        policy, prices = self.admission.policy, self.model.prices
        requests = 1 if self.served else 0
        cost_nano = usage.cost_nano(
            self.tokens_in,
            self.tokens_out,
            requests,
            input_token_pico=prices.input_token_pico,
            output_token_pico=prices.output_token_pico,
            request_pico=prices.request_pico,
        )
        if cost_nano > self.admission.reserved_nano:
            # The model's bound was wrong. The customer pays what was promised at admission at most.
            log.error(
                "cost above reservation",
                extra={"request_id": str(self.request_id), "cost_nano": cost_nano},
            )
            cost_nano = self.admission.reserved_nano
        return usage.Settle(
            request_id=self.request_id,
            tenant_id=policy.tenant_id,
            project_id=policy.project_id,
            key_id=policy.key_id,
            model=self.model.name,
            surface=self.work.surface,
            stream=self.work.stream,
            status=status,
            http_status=http_status,
            tokens_in=self.tokens_in,
            tokens_out=self.tokens_out,
            requests=requests,
            rows=self.rows if self.served else 0,
            bytes_in=self.work.bytes_in,
            bytes_out=self.bytes_out,
            provenance=self.provenance,
            currency=policy.currency,
            price_version_id=policy.price_version_id,
            cost_nano=cost_nano,
            reserved_nano=self.admission.reserved_nano,
            admitted_at_ms=self._admitted_at_ms,
            settled_at_ms=clock.now_ms(),
            first_byte_ms=self._first_byte_ms,
            total_ms=self._elapsed_ms(),
            server=self.server,
        )

    def _elapsed_ms(self) -> int:
        return int((time.monotonic() - self._began) * 1000)
