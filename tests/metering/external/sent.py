"""Events as another system would send them."""

from datetime import timedelta

from meterplane.kernel import clock
from meterplane.metering.external.receive import Outcome, receive
from meterplane.metering.external.shape import read_event

TYPE = "com.acme.training"


def event(event_id: str = "1", *, ago: timedelta = timedelta(hours=1), **changes) -> dict:
    """An event of acme's training job, `ago` before now; a change to None leaves it out."""
    values = {
        "specversion": "1.0",
        "id": event_id,
        "source": "/jobs/7",
        "type": TYPE,
        "subject": "acme",
        "time": (clock.now() - ago).isoformat(),
        "data": {"gpu_seconds": 12, "gpu": "h200"},
    }
    return {name: value for name, value in (values | changes).items() if value is not None}


def send(*events: dict, by: str = "tests") -> list[Outcome]:
    """What became of each."""
    return receive([read_event(each) for each in events], received_by=by)


def statuses(outcomes: list[Outcome]) -> list[str]:
    return [each.status for each in outcomes]
