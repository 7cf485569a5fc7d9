"""What the doctor looks at, and what it says of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from meterplane.kernel.finding import Finding as Finding
from meterplane.kernel.finding import Verdict as Verdict
from meterplane.stack.layout import Layout
from meterplane.stack.record import StackRecord


@dataclass(frozen=True, slots=True)
class Patient:
    """What is examined. `record` is None while nothing runs.

    An address is empty for a server that is not running and would be started here. `told` is the
    environment of our processes, as far as there are any.
    """

    layout: Layout
    record: StackRecord | None
    database: str = ""
    broker: str = ""
    admission: str = ""
    triton: str = ""
    stripe: str = ""
    stripe_key: str = ""
    told: Mapping[str, str] = field(default_factory=dict)
