"""A gateway in front of the real Triton, whose journal is shipped and taken in beside the test."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.db import connections

from meterplane.metering.ingest import ingest_segments
from meterplane.metering.ship import Shipper
from meterplane.triton.metrics import MeasuredServer
from tests.conftest import TritonServer


def measured(triton: TritonServer) -> MeasuredServer:
    """How the gateways call it."""
    return MeasuredServer((triton.http_url, triton.grpc_url), triton.metrics_url)


@contextmanager
def shipped(journal: Path) -> Iterator[None]:
    """Its segments are taken in while the block runs."""
    stopping = threading.Event()

    def ship() -> None:
        try:
            Shipper(journal, send=ingest_segments).run(stopping.is_set)
        finally:
            connections.close_all()

    shipper = threading.Thread(target=ship)
    shipper.start()
    try:
        yield
    finally:
        stopping.set()
        shipper.join()
