"""`python -m meterplane.gateway`: one worker process, drained on SIGTERM."""

import logging
import os
import sys

import uvicorn

from meterplane.gateway.app import Gateway
from meterplane.gateway.bounded_http import BoundedHttp
from meterplane.gateway.config import ConfigInvalid, from_environment
from meterplane.gateway.worker import Worker

DRAIN_S = 30  # in-flight requests at SIGTERM; longer streams are cut and settled as cancelled
BACKLOG = 2048


def main() -> int:
    """Serve until told to stop; 2 when the environment cannot be used."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        config = from_environment(os.environ)
    except ConfigInvalid as invalid:
        for problem in invalid.problems:
            print(f"gateway: {problem}", file=sys.stderr)  # noqa: T201
        return 2
    uvicorn.run(
        Gateway(Worker(config)),
        host=config.host,
        port=config.port,
        loop="uvloop",
        http=BoundedHttp,
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        date_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=DRAIN_S,
        timeout_keep_alive=75,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
