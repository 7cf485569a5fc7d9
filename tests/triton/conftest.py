"""What tests of the client share.

Those against scripted servers run on both loops: the one of the tests and the one of the product.
They differ in when they abort, pause and tell the time.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from tests.triton.fleets import Fleets

ON_BOTH_LOOPS = {"test_client", "test_pool", "test_probes", "test_stream", "test_tls"}


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    both = item.path.parent.name == "triton" and item.path.stem in ON_BOTH_LOOPS
    return {"asyncio": asyncio.new_event_loop} | ({"uvloop": uvloop.new_event_loop} if both else {})


@pytest.fixture
async def fleets() -> AsyncIterator[Fleets]:
    made = Fleets()
    yield made
    for fleet in made.made:
        await fleet.close()
    await asyncio.sleep(0)  # aborted transports report their end in the loop's next round
