"""`python -m meterplane.gateway.kserve_grpc`: one gRPC worker process, drained on SIGTERM."""

import logging
import os
import sys

import uvloop

from meterplane.gateway import server as http_server
from meterplane.gateway.config import ConfigInvalid
from meterplane.gateway.kserve_grpc import server
from meterplane.gateway.kserve_grpc.config import from_environment
from meterplane.journal.writer import JournalUnavailable

DRAIN_S = http_server.DRAIN_S


def main() -> int:
    """Serve until told to stop; 2 when the environment cannot be used, 1 when it cannot start."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        config = from_environment(os.environ)
    except ConfigInvalid as invalid:
        for problem in invalid.problems:
            print(f"gateway: {problem}", file=sys.stderr)  # noqa: T201
        return 2
    try:
        uvloop.run(server.run(config, DRAIN_S))
    except (OSError, JournalUnavailable) as problem:
        print(f"gateway: it cannot start: {problem}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
