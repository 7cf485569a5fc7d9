"""The benchmark's one verdict, on journals that were made wrong on purpose."""

from pathlib import Path
from uuid import UUID

import msgspec
import pytest

from meterplane.contracts import usage
from meterplane.journal.writer import JournalWriter
from meterplane.kernel.ids import uuid7
from tests.benchmarks.gateway.accounts import Account
from tests.benchmarks.gateway.workload import TOKENS_IN, TOKENS_OUT

WHO = {name: UUID(int=1) for name in ("tenant_id", "project_id", "key_id", "price_version_id")}
WHAT = {"model": "bench", "surface": "openai.chat", "stream": False, "currency": "USD"}
COST = {"reserved_nano": 9, "admitted_at_ms": 0}


def admit() -> usage.Admit:
    prices = {"input_token_pico": 1, "output_token_pico": 1, "request_pico": 0}
    return msgspec.convert(
        WHO | WHAT | COST | prices | {"request_id": uuid7()}, usage.Admit, from_attributes=True
    )


def settle(of: usage.Admit, tokens_out: int = TOKENS_OUT, status: str = "ok") -> usage.Settle:
    counts = {"tokens_in": TOKENS_IN, "tokens_out": tokens_out, "requests": 1, "rows": 1}
    rest = {"http_status": 200, "bytes_in": 1, "bytes_out": 1, "provenance": "engine"}
    times = {"cost_nano": 1, "settled_at_ms": 1, "first_byte_ms": 1, "total_ms": 1}
    about = {"request_id": of.request_id, "status": status}
    return msgspec.convert(WHO | WHAT | COST | counts | rest | times | about, usage.Settle)


async def account_of(folder: Path, frames: list[usage.Frame], answered: int, unread: int = 0):
    journal = JournalWriter.open(folder, "bench")
    for frame in frames:
        journal.append(frame)
    await journal.commit()
    await journal.close()
    account = Account("bench", folder)
    account.expect(answered, unread)
    account.read_sealed()
    return account


async def test_answers_that_are_each_there_once_are_no_problem(tmp_path):
    admits = [admit() for _ in range(3)]
    account = await account_of(tmp_path, [*admits, *map(settle, admits)], answered=3)
    assert account.problems(served=3) == []
    assert account.tokens == 3 * (TOKENS_IN + TOKENS_OUT)
    assert not list(tmp_path.rglob("*.sealed"))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("lost", "1 answers are not in the journal"),
        ("doubled", "1 settlements without an admission, or second ones"),
        ("open", "1 requests were admitted and never settled"),
        ("miscounted", "1 requests were settled with other token counts than the upstream's"),
        ("more", "1 more settled as answered than clients can have got"),
        ("retried", "1 answers of the upstream were never admitted"),
        ("invented", "1 answers were settled that the upstream never gave"),
    ],
)
async def test_usage_that_was_lost_doubled_or_miscounted_is_named(tmp_path, wrong, said):
    admits = [admit(), admit()]
    frames: list[usage.Frame] = [*admits, *map(settle, admits)]
    answered, served = 2, 2
    if wrong == "lost":
        answered = served = 3
    elif wrong == "doubled":
        frames.append(settle(admits[0]))
    elif wrong == "open":
        frames.append(admit())
    elif wrong == "miscounted":
        frames[-1] = settle(admits[1], tokens_out=TOKENS_OUT + 1)
    elif wrong == "more":
        answered = 1
    elif wrong == "retried":
        served = 3
    else:
        served = 1
    account = await account_of(tmp_path, frames, answered)
    assert f"bench: {said}" in account.problems(served)


async def test_what_a_client_left_unread_may_or_may_not_have_been_settled(tmp_path):
    admits = [admit() for _ in range(3)]
    frames = [*admits, settle(admits[0]), settle(admits[1]), settle(admits[2], 0, "cancelled")]
    account = await account_of(tmp_path, frames, answered=1, unread=2)
    assert account.problems(served=3) == []
