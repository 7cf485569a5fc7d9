"""No request is admitted after the call that took its key away has returned.

At full load, over several gateway workers, by several at once, and with Redis killed in between.
"""

import random
import time

import pytest

from meterplane.stack.embedded import redis as embedded
from tests import environment
from tests.conftest import spawn, stop, wait_until
from tests.gateway.revocation_race import (
    WAYS,
    admits_of,
    counted,
    make_victims,
    race,
    rotate,
    suspend,
)

pytestmark = pytest.mark.django_db(transaction=True)


def seeded():
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)


def judge(victims, gateways, rate):
    """What callers and journals saw after each call had returned; what there was to see."""
    admits = admits_of(gateways)
    served = {each.tenant.slug: each.served_later for each in victims}
    journaled = {
        each.tenant.slug: sum(at > each.returned_ms for at in admits[each.tenant.key_id])
        for each in victims
    }
    refused = [each.refused_later for each in victims]
    print(
        f"{len(victims)} keys taken away, {sum(len(each) for each in admits.values())} admissions,"
        f" {rate:.0f} answers/s, {sum(refused)} refused later (least of a key: {min(refused)}),"
        f" served later {sum(served.values())}, in the journals {sum(journaled.values())}"
    )
    assert served == dict.fromkeys(served, 0)
    assert journaled == dict.fromkeys(journaled, 0)


async def run(start_gateway, triton, onboard, redis_url, *, workers, keys, callers):
    random_ = seeded()
    gateways = [
        start_gateway(triton.http_url, GATEWAY_WORKER=f"w{number}") for number in range(workers)
    ]
    victims = make_victims(onboard, gateways, keys, callers)
    rate = await race(victims, redis_url, random_)
    judge(victims, gateways, rate)
    admits = admits_of(gateways)
    for victim in victims:
        at_the_end = counted(victim.tenant, redis_url)
        assert at_the_end == victim.counted, "the counter stands still once the call has returned"
        assert at_the_end == len(admits[victim.tenant.key_id])
        last_served = max(asked for asked, status in victim.bystander.answers if status == 200)
        assert victim.way is suspend or last_served > victim.returned, "only its key was taken away"


async def test_nobody_is_admitted_after_the_call_that_took_the_key_away_returned(
    start_gateway, triton, selling, onboard, redis_url
):
    await run(start_gateway, triton, onboard, redis_url, workers=2, keys=10, callers=3)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_nobody_is_admitted_after_any_of_a_hundred_such_calls(
    start_gateway, triton, selling, onboard, redis_url
):
    await run(start_gateway, triton, onboard, redis_url, workers=8, keys=100, callers=2)


@pytest.fixture
def own_redis(tmp_path, settings, servers):
    """An admission Redis of the test's own, and a function that kills it and starts another."""
    home = tmp_path / "redis"
    address = embedded.url(home, environment.REDIS_PASSWORD)
    settings.ADMISSION_REDIS_URL = address
    running = []

    def start():
        command = embedded.redis_command(
            home, role="admission", password=environment.REDIS_PASSWORD
        )
        running.append(spawn(command, tmp_path / "redis.log"))
        wait_until(lambda: embedded.is_ready(address), "the Redis answering")

    def lose():
        time.sleep(0.05)
        running[-1].kill()
        running[-1].wait()
        start()

    start()
    yield address, lose
    stop(running[-1])


async def run_with_losses(
    start_gateway, triton, onboard, own_redis, *, workers, keys, callers, losses
):
    address, lose = own_redis
    random_ = seeded()
    gateways = [
        start_gateway(
            triton.http_url,
            GATEWAY_WORKER=f"w{number}",
            ADMISSION_REDIS_URL=address,
            ADMISSION_TIMEOUT_MS="250",
        )
        for number in range(workers)
    ]
    # A rotation is not repeated: it says that its key was replaced already.
    ways = [way for way in WAYS if way is not rotate]
    victims = make_victims(onboard, gateways, keys, callers, ways)

    def meanwhile():
        for _ in range(losses):
            lose()
            time.sleep(random_.uniform(0.05, 0.5))

    rate = await race(victims, address, random_, meanwhile)
    judge(victims, gateways, rate)
    again = max(at for each in victims for at, status in each.bystander.answers if status == 200)
    assert again > max(each.returned for each in victims), "it serves again"


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_nor_when_redis_is_lost_in_between(
    start_gateway, triton, selling, onboard, own_redis
):
    await run_with_losses(
        start_gateway, triton, onboard, own_redis, workers=2, keys=9, callers=3, losses=2
    )


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_nor_when_redis_is_lost_ten_times_in_between(
    start_gateway, triton, selling, onboard, own_redis
):
    await run_with_losses(
        start_gateway, triton, onboard, own_redis, workers=4, keys=60, callers=2, losses=10
    )
