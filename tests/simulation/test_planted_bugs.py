"""Each bug that admission could have is seen by the test that is named for it."""

import pytest

from tests.simulation.planted_bugs import EVERY, ROOT, Bug, caught, planted, run_tests


def test_the_list_is_worth_running():
    assert len({bug.name for bug in EVERY}) == len(EVERY) >= 25
    for bug in EVERY:
        file, name = bug.test.split("::")
        assert f"def {name}(" in (ROOT / file).read_text(), bug.test


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_tests_pass_where_nothing_is_planted(tmp_path):
    """In such a copy: what fails there fails for the bug."""
    copy = planted(Bug("none", (("gateway/admit.py", "import time\n", "import time\n\n"),), ""),
                   tmp_path / "copy")  # fmt: skip
    status, output = run_tests(sorted({bug.test for bug in EVERY}), copy)
    assert status == 0, output[-3000:]


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("bug", EVERY, ids=lambda bug: bug.name)
def test_a_planted_bug_is_caught(bug: Bug, tmp_path):
    assert caught(bug, tmp_path / "copy") == ""
    print(f"{bug.name}: seen by {bug.test}")
