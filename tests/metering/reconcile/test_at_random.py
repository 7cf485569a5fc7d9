"""Random hours: what is whole always passes, what lost one request never does.

Triton is simulated as it was seen to behave: it counts a request that ended well some moment after
its answer, at most `LAG_S` later; of one that was cancelled or cut it may count all, some or none.
"""

import random
from collections import defaultdict
from datetime import datetime, timedelta

import pytest

from meterplane.metering.ingest import ingest_segment
from meterplane.metering.reconcile.hours import reconcile_hour
from meterplane.metering.reconcile.spread import spread
from meterplane.metering.reconcile.verdict import EVERY_SERVER
from tests.metering.reconcile import world
from tests.metering.reconcile.world import GRPC, HTTP, as_owner, ms
from tests.metering.segments import message

pytestmark = pytest.mark.django_db(transaction=True)

LAG_S = 4
KINDS = (
    ("tiny-lm", "openai.chat"),
    ("tiny-lm", "openai.completions"),
    ("tiny-lm", "grpc.stream_infer"),
    ("identity", "kserve.infer"),
    ("identity", "grpc.infer"),
    ("all-minilm-l6-v2", "openai.embeddings"),
)
APART = 3 * world.HOUR  # a request of one round may end within the next hour


def one_event(tenant, chance: random.Random, hour: datetime):
    """A request around the hour, and when Triton counts what of it."""
    model, surface = chance.choice(KINDS)
    began_ms = ms(hour) + chance.randrange(-600_000, 4_200_000)
    lasted_ms = chance.choice([1, 20, 300, 5_000, 120_000, 600_000])
    status = chance.choice(["ok"] * 6 + ["error", "cancelled", "interrupted"])
    prompts = chance.randint(1, 5) if surface == "openai.completions" else 1
    texts = chance.randint(1, 9) if surface == "openai.embeddings" else prompts
    failed = status in ("error", "interrupted")
    made = world.event(
        tenant, hour,
        model=model, surface=surface, status=status, rows=0 if failed else texts,
        server=chance.choice(["", HTTP]) if failed else chance.choice([HTTP, GRPC, HTTP + "/"]),
        requests=0 if failed else 1, retries=chance.choice([0, 0, 0, 1]),
        request_id=world.minted(began_ms), admitted_at_ms=began_ms,
        settled_at_ms=began_ms + lasted_ms,
    )  # fmt: skip
    counted = prompts if status == "ok" else chance.randint(0, prompts)
    ends_ms = began_ms + lasted_ms
    latest_ms = ends_ms + LAG_S * 1000 + (lasted_ms if status != "ok" else 0)
    at_ms = [
        chance.randrange(began_ms, ends_ms) + 1 if prompts > 1 and n else
        chance.randrange(ends_ms, latest_ms)
        for n in range(counted)
    ]  # fmt: skip
    return made, at_ms


def one_hour(tenant, chance: random.Random, hour: datetime):
    """Events taken in in random segments, and looks at random instants."""
    made = [one_event(tenant, chance, hour) for _ in range(chance.randint(3, 25))]
    events = [event for event, _ in made]
    chance.shuffle(events)
    while events:
        cut = chance.randint(1, len(events))
        ingest_segment(message(events[:cut]))
        events = events[cut:]
    counted = defaultdict(list)
    for event, instants in made:
        counted[event.model] += instants
    base = {model: chance.randrange(10_000) for model in world.MODELS}
    at_ms, looks = ms(hour) - chance.randint(0, 90_000), {}
    while not looks or max(looks) < hour + world.HOUR:
        # Looked at, and read some moment later.
        read_ms = at_ms + chance.randrange(500)
        looks[world.clock.from_ms(at_ms)] = {
            model: base[model] + sum(each <= read_ms for each in counted[model])
            for model in world.MODELS
        }
        at_ms += chance.choice([55_000, 60_000, 61_000, 180_000])
    world.looked(looks)
    return [event for event, _ in made]


def rounds(acme, seed: int, number: int) -> tuple[int, int]:
    """How many verdicts were seen, and how many of them were exact of Triton."""
    print(f"seed {seed}, n {number}")
    chance = random.Random(seed)
    seen = exact = 0
    for n in range(number):
        hour = world.last_hour() - (n + 1) * APART
        events = one_hour(acme, chance, hour)
        spread()
        found = reconcile_hour(hour)
        assert {each.verdict for each in found} <= {"pass"}, (seed, n, [f.reason for f in found])
        seen += len(found)
        exact += sum(f.served is not None and f.served.bounds.low == f.served.bounds.high
                     for f in found)  # fmt: skip
        inside = [e for e in events if ms(hour) <= e.request_id.int >> 80 < ms(hour + world.HOUR)]
        if not inside:
            continue
        lost = chance.choice(inside)
        as_owner("DELETE FROM usage_event WHERE request_id = %s", lost.request_id)
        whole = {f.model: f for f in reconcile_hour(hour) if f.server == EVERY_SERVER}
        assert whole[lost.model].verdict == "fail", (seed, n)
        assert whole[lost.model].ids.missing == [lost.request_id], (seed, n)
    return seen, exact


def test_whole_hours_pass_and_one_lost_request_fails(acme):
    seen, _ = rounds(acme, seed=random.SystemRandom().randrange(2**32), number=6)
    assert seen >= 6


@pytest.mark.long
def test_two_hundred_whole_hours_pass_and_one_lost_request_fails(acme):
    seen, exact = rounds(acme, seed=20_261_129, number=200)
    print(f"{seen} verdicts, {exact} exact")
    assert exact > 100


def test_what_only_triton_saw_is_told_wherever_the_bounds_are_exact(acme):
    """A request whose journal was lost with its disk: no id of it is anywhere."""
    hour = world.last_hour() - APART
    kept = [world.event(acme, hour + n * world.MINUTE) for n in (3, 30, 57)]
    ingest_segment(message(kept[:2]))
    world.looked_each_minute(hour, {"tiny-lm": 3})
    spread()
    row = next(f for f in reconcile_hour(hour) if f.server == HTTP)
    assert row.verdict == "fail"
    assert row.served.successes == row.served.bounds.high + 1


def test_a_straddling_request_may_be_in_either_hour_and_is_in_one(acme):
    """Two hours share their look: what is counted in none or in both would be seen."""
    first = world.last_hour() - APART
    second = first + world.HOUR
    over = world.event(acme, second - timedelta(seconds=1))
    over = world.replaced(over, settled_at_ms=ms(second) + 2_000)
    ingest_segment(message([over]))
    looks = {first + n * world.MINUTE: {"tiny-lm": 7 + (n > 60)} for n in range(125)}
    world.looked(looks)
    spread()
    for hour, counted in ((first, 0), (second, 1)):
        served = next(f for f in reconcile_hour(hour) if f.server == HTTP).served
        assert (served.successes, served.bounds.low, served.bounds.high) == (counted, 0, 1)
        assert all(f.verdict == "pass" for f in reconcile_hour(hour))
