"""Bugs that admission could have, each planted in a copy of the package, and the test that sees it.

A bug is a set of replacements of text that occurs exactly once. It is run as nothing else is: the
copy comes first on PYTHONPATH of a pytest process of its own, and the named test has to fail there.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path("platform") / "meterplane"
RUN_TIMEOUT_S = 300
# Of the plugins that are installed those we use: loading the others takes half of a short run.
PLUGINS = ("pytest_django.plugin", "pytest_asyncio.plugin", "pytest_timeout", "pytest_socket")

ADMIT_LUA = "gateway/admission.lua"
SETTLE_LUA = "contracts/settle.lua"
CREDIT_LUA = "contracts/credit.lua"
ADMIT = "gateway/admit.py"
COMMANDS = "gateway/admission_commands.py"
CALLS = "gateway/lua_calls.py"
APPLIED = "gateway/applied_limits.py"
WINDOWS = "contracts/windows.py"
GRANTS = "policy/migrations/0003_budget_grants.py"

POOLS = "tests/gateway/test_pools.py::"
LIMITS = "tests/gateway/test_limits.py::"
ADMISSION = "tests/gateway/test_admission.py::"
TOGETHER = "tests/gateway/test_together.py::test_what_is_asked_together_is_answered_as_one_by_one"
BLOCKS = "tests/policy/test_budget_grants.py::"


@dataclass(frozen=True, slots=True)
class Bug:
    """`edits` are (file in the package, what stands there, what the bug has instead)."""

    name: str
    edits: tuple[tuple[str, str, str], ...]
    test: str


def bug(name: str, test: str, *edit: str) -> Bug:
    """One with one or more edits of three strings each."""
    edits = tuple(zip(edit[::3], edit[1::3], edit[2::3], strict=True))
    return Bug(name, edits, test)


_TAKES = "call('HINCRBY', key, 'left', text('-%.0f', added))"
_TAKEN = "limit.left, limit.added = limit.left - nano, limit.added + nano"
_TOLD = "return limit.granted and limit.left"
_OWED = "self._insist.owe(prepared.settles.command([(reservation, spelt(NOTHING))]))"
_ADMITTED = (
    'return Admission(attempt.request_id, policy, 0, [None] * len(prepared.limits), "",'
    " reservation, prepared, now_ms)"
)
_CREDITED = "local credited = redis.call('SADD', KEYS[2], ARGV[2])"

EVERY = (
    bug("only the last budget is checked",
        POOLS + "test_the_smallest_of_three_budgets_binds_exactly",
        ADMIT_LUA, "if limit.left - limit.above < nano then",
        "if limit.left - limit.above < nano and limit == watched[limits] then"),
    bug("a settlement that comes twice gives back twice",
        ADMISSION + "test_a_reservation_is_held_in_every_pool_and_settled_once",
        SETTLE_LUA, "call('GETDEL', key)", "call('GET', key)"),
    bug("who gets no answer of Redis is let in",
        POOLS + "test_a_redis_that_is_away_admits_nobody",
        ADMIT, f"                    {_OWED}\n                raise\n",
        f"                    {_OWED}\n                {_ADMITTED}\n"),
    bug("the version of a policy is not checked",
        ADMISSION + "test_nothing_is_admitted_under_a_policy_that_is_not_current",
        ADMIT_LUA, "stale = version ~= ARGV[1]", "stale = false"),
    bug("what is reserved is not taken from the pool",
        POOLS + "test_the_smallest_of_three_budgets_binds_exactly",
        ADMIT_LUA, _TAKES, ""),
    bug("a pool is taken from before the others are checked",
        POOLS + "test_who_is_refused_holds_nothing_in_the_pools_that_had_enough",
        ADMIT_LUA, _TAKEN, "",
        ADMIT_LUA, _TOLD, f"{_TAKEN}\n    {_TOLD}"),
    bug("what was not used is not given back",
        ADMISSION + "test_a_reservation_is_held_in_every_pool_and_settled_once",
        SETTLE_LUA, "call('HINCRBY', key, 'left', text('%.0f', back))", ""),
    bug("unused tokens of a day are not given back",
        LIMITS + "test_tokens_that_were_not_used_are_there_again",
        SETTLE_LUA, "call('DECRBY', key, text('%.0f', count))", ""),
    bug("a place of those at once is never free again",
        LIMITS + "test_who_is_open_at_once_is_told_by_settling_and_by_nothing_else",
        SETTLE_LUA, "call('ZREM', key, reservation)", ""),
    bug("an admission without an answer is not given back",
        ADMISSION + "test_a_stall_withholds_nothing_however_much_stood_in_the_socket",
        ADMIT, _OWED, "pass"),
    bug("two tries of a request share a reservation",
        ADMISSION + "test_a_request_that_comes_again_is_not_released_by_its_first_try",
        COMMANDS, 'return b"%b:%b" % (str(request_id).encode(), token)',
        'return b"%b:%b" % (str(request_id).encode(), b"0" * len(token))'),
    bug("a request may cost more than it reserved",
        POOLS + "test_no_request_costs_more_than_it_reserved",
        ADMIT, 'ensure(used.nano <= admission.reserved_nano, "no request costs more than it '
        'reserved")', "pass"),
    bug("a policy that was just read is current, whatever came since",
        POOLS + "test_a_policy_just_read_that_is_outdated_already_is_not_made_current",
        ADMIT_LUA, "or (version and tonumber(version) > tonumber(ARGV[1]))", ""),
    bug("a Redis that lost everything is taken for what it was",
        ADMISSION + "test_each_redis_that_forgot_everything_opens_an_epoch_of_its_own",
        ADMIT_LUA, "epoch = ARGV[3]", "epoch = '1'"),
    bug("a block is credited as often as it is told",
        POOLS + "test_a_block_is_credited_once_in_its_epoch_and_in_no_other",
        CREDIT_LUA, _CREDITED, "local credited = 1"),
    bug("a block is credited in whatever epoch it is",
        POOLS + "test_a_block_is_credited_once_in_its_epoch_and_in_no_other",
        CREDIT_LUA, "if redis.call('GET', KEYS[1]) ~= ARGV[1] then", "if false then"),
    bug("older news of what is granted overwrite newer",
        POOLS + "test_news_that_are_older_change_nothing_that_is_told",
        CREDIT_LUA, "if tonumber(ARGV[6]) > revision then", "if true then"),
    bug("a stranded grant is told as an empty budget",
        POOLS + "test_what_is_stranded_is_a_fault_of_ours_and_no_empty_budget",
        ADMIT, "if granted.stranded:", "if False:"),
    bug("what others hold is told as spent",
        POOLS + "test_what_others_hold_is_waited_for_and_then_told_as_held",
        ADMIT_LUA, "text('%.0f', held)", "'0'"),
    bug("a block on its way is told as spent",
        POOLS + "test_a_block_on_its_way_to_the_pool_is_waited_for_and_not_told_as_spent",
        ADMIT, "attempt.held_nano += max(0, granted.epoch_nano - attempt.credited_nano)", "pass"),
    bug("a rate lets one more pass",
        LIMITS + "test_each_kind_holds_exactly_at_each_level",
        ADMIT_LUA, "if ahead > limit.window + limit.a / 100 then",
        "if ahead > limit.window + limit.a then"),
    bug("a rate keeps its last place",
        LIMITS + "test_each_kind_holds_exactly_at_each_level",
        ADMIT_LUA, "if ahead > limit.window + limit.a / 100 then",
        "if ahead > limit.window - limit.a then"),
    bug("a policy read before Redis lost everything is believed",
        POOLS + "test_a_policy_just_read_that_is_outdated_already_is_not_made_current",
        ADMIT_LUA, "stale = ARGV[2] ~= epoch or (version", "stale = (version"),
    bug("a day's counter lets one more pass",
        LIMITS + "test_each_kind_holds_exactly_at_each_level",
        ADMIT_LUA, "if counted > limit.a then", "if counted > limit.a + 1 then"),
    bug("one more than allowed is open at once",
        LIMITS + "test_each_kind_holds_exactly_at_each_level",
        ADMIT_LUA, "if open > limit.a then", "if open > limit.a + 1 then"),
    bug("a limit that only notifies refuses",
        LIMITS + "test_what_only_notifies_refuses_nothing_and_is_counted",
        ADMIT_LUA, "if limit.refuses then", "if true then"),
    bug("a limit that refuses only notifies",
        LIMITS + "test_each_kind_holds_exactly_at_each_level",
        APPLIED, 'rule if limit.mode == "enforce" else rule.upper()', "rule.upper()"),
    bug("the limit of one model holds for all",
        LIMITS + "test_each_kind_holds_exactly_at_each_level",
        APPLIED, 'limit.level == "key_model" and limit.model != model', "False"),
    bug("a month begins a day early",
        ADMISSION + "test_a_new_month_has_pools_of_its_own",
        WINDOWS, 'at.strftime("%Y-%m")', '(at + timedelta(days=1)).strftime("%Y-%m")'),
    bug("a day begins an hour late",
        LIMITS + "test_days_are_the_calendars",
        WINDOWS, 'at.strftime("%Y-%m-%d")', '(at - timedelta(hours=1)).strftime("%Y-%m-%d")'),
    bug("a window lasts a moment longer than it does",
        LIMITS + "test_days_are_the_calendars",
        ADMIT, "prepared.from_ms <= now_ms < prepared.until_ms",
        "prepared.from_ms <= now_ms <= prepared.until_ms"),
    bug("a temporary raise stays",
        LIMITS + "test_a_raise_holds_until_its_end_without_a_new_policy",
        "contracts/policy.py", "at_ms < (self.raised_until_ms or 0)", "True"),
    bug("who asks together does not see what the others took",
        TOGETHER, ADMIT_LUA, _TAKEN, "limit.added = limit.added + nano"),
    bug("who asks together is one at a rate",
        TOGETHER, ADMIT_LUA, "limit.ahead, limit.added = limit.next, 1", "limit.added = 1",
        ADMIT_LUA, "now + limit.ahead), 'PX', math.ceil(limit.ahead",
        "now + limit.next), 'PX', math.ceil(limit.next"),
    bug("of what is given back together only the last is",
        TOGETHER, SETTLE_LUA, "spent, back = spent + held_nano - nano, back + nano",
        "spent, back = held_nano - nano, nano"),
    bug("who asks together is given anothers answer",
        POOLS + "test_who_asks_together_is_answered_for_itself",
        CALLS, "zip(calls, answers, strict=True)", "zip(calls, answers[::-1], strict=True)"),
    bug("blocks are taken without a lock",
        BLOCKS + "test_eight_connections_racing_take_exactly_the_limit",
        GRANTS, "= window_label FOR UPDATE;", "= window_label;",
        GRANTS, "AND w.granted_nano + give <= limit_now", ""),
    bug("every worker takes a block of its own",
        BLOCKS + "test_no_block_is_taken_while_another_is_under_way_to_the_pool",
        GRANTS, "held.revision > told AND", "false AND"),
)  # fmt: skip


def planted(bug: Bug, folder: Path) -> Path:
    """A copy of the repository with the bug: links to what is, but for the files it is in."""
    folder.mkdir()
    for each in ROOT.iterdir():
        if each.name not in ("platform", ".git"):
            (folder / each.name).symlink_to(each)
    edited: dict[str, str] = {}
    for name, right, wrong in bug.edits:
        text = edited.get(name) or (ROOT / PACKAGE / name).read_text()
        if text.count(right) != 1:
            raise AssertionError(f"{bug.name}: {right!r} is {text.count(right)} times in {name}")
        edited[name] = text.replace(right, wrong)
    _link(ROOT / PACKAGE, folder / PACKAGE, {Path(name) for name in edited})
    for name, text in edited.items():
        (folder / PACKAGE / name).write_text(text)
    return folder


def _link(source: Path, target: Path, without: set[Path]) -> None:
    """A folder of links to all that is in another, folders made where something is left out."""
    target.mkdir(parents=True)
    for each in source.iterdir():
        inside = {Path(*path.parts[1:]) for path in without if path.parts[0] == each.name}
        if Path() in inside:
            continue
        if inside:
            _link(each, target / each.name, inside)
        else:
            (target / each.name).symlink_to(each)


def run_tests(tests: list[str], folder: Path) -> tuple[int, str]:
    """Exit status and output of pytest where the copy comes first."""
    # Compiled files are shared with what is right: nothing may be written there.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST_", "METERPLANE_", "DJANGO_"))
    }
    environment |= {
        "PYTHONPATH": str(folder / "platform"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    plugins = [part for plugin in PLUGINS for part in ("-p", plugin)]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *plugins, *tests],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=RUN_TIMEOUT_S,
        check=False,
    )  # fmt: skip
    return ran.returncode, ran.stdout + ran.stderr


def caught(bug: Bug, folder: Path) -> str:
    """Empty when its test failed, and for no other reason than the test itself; else why not."""
    status, output = run_tests([bug.test], planted(bug, folder))
    if status == 0:
        return f"{bug.test} passed"
    if status != 1 or not re.search(r"^1 failed(?!.* error)", output, re.M):
        return f"{bug.test} did not run as it should (exit {status}):\n{output[-3000:]}"
    return ""
