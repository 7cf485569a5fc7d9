"""The list of deviations is kept honest: all are tried, none is claimed that is gone."""

import ast
from pathlib import Path

import pytest

from tests.stripe_sandbox.conformance.account import Account
from tests.stripe_sandbox.conformance.conftest import VARIABLE, targets
from tests.stripe_sandbox.conformance.deviations import DEVIATIONS, Deviation
from tests.stripe_sandbox.rig import KEY, Sandbox

HERE = Path(__file__).parent
LISTED = {"colour": Deviation(at_stripe="it is blurple", here="it is grey", why="paint")}


def tried() -> set[str]:
    """Names that the suite's files hand to `deviation`."""
    found = set()
    for file in set(HERE.glob("test_*.py")) - {Path(__file__)}:
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(attr="deviation"), args=[ast.Constant(value=str(name))]
                ):
                    found.add(name)
    return found


def test_every_listed_deviation_is_tried_and_every_one_tried_is_listed():
    assert tried() == set(DEVIATIONS)


def test_every_deviation_is_described():
    for name, known in DEVIATIONS.items():
        assert min(map(len, (known.at_stripe, known.here, known.why))) > 10, name


@pytest.mark.parametrize(
    ("key", "names"),
    [("", 1), ("sk_test_1", 2), ("rk_test_1", 2)],
)
def test_stripe_itself_is_a_target_where_a_test_key_is_given(
    monkeypatch: pytest.MonkeyPatch, key: str, names: int
):
    monkeypatch.setenv(VARIABLE, key)
    assert len(targets()) == names


@pytest.mark.parametrize("key", ["sk_live_1", "rk_live_1", "whatever"])
def test_a_key_that_could_move_money_is_refused(monkeypatch: pytest.MonkeyPatch, key: str):
    monkeypatch.setenv(VARIABLE, key)
    with pytest.raises(pytest.UsageError, match="sk_test_"):
        targets()


@pytest.fixture
def here(sandbox: Sandbox) -> Account:
    return Account(KEY, sandbox.url, "http://127.0.0.1:9/", LISTED)


def test_what_deviates_as_listed_passes(here: Account):
    with here.deviation("colour"):
        raise AssertionError("but it is grey")


def test_what_deviates_otherwise_fails(here: Account):
    fails = pytest.raises(pytest.fail.Exception, match="in another way than listed")
    with fails, here.deviation("colour"):
        raise AssertionError("but it is green")


def test_what_does_not_deviate_any_more_fails(here: Account):
    fails = pytest.raises(pytest.fail.Exception, match="colour does not deviate any more")
    with fails, here.deviation("colour"):
        pass


def test_what_is_not_listed_does_not_pass(here: Account):
    with pytest.raises(KeyError), here.deviation("size"):
        raise AssertionError("it is small")


def test_at_stripe_nothing_is_excused():
    there = Account(KEY, None, "https://example.com/", LISTED)
    with pytest.raises(AssertionError, match="it is grey"), there.deviation("colour"):
        raise AssertionError("it is grey")
