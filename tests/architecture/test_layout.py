"""The source roots, and what would break if they were touched.

`platform/` is a source root. An `__init__.py` in it makes it a package that shadows the standard
library's `platform`, on which `uuid`, Django and half of the world depend; and only a test tells,
because most entry points do not have the root first on their path.
"""

import subprocess
import sys
from pathlib import Path

import billing
import meterplane
import tenants

ROOT = Path(__file__).resolve().parents[2]


def test_platform_is_never_a_package():
    assert not (ROOT / "platform" / "__init__.py").exists()


def test_the_standard_library_platform_wins_with_the_root_first_on_the_path():
    code = "import platform; print(platform.__file__); platform.machine()"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert str(ROOT) not in found.replace(str(ROOT / ".venv"), "")


def test_our_packages_come_from_this_checkout():
    for package, folder in ((meterplane, "platform"), (billing, "."), (tenants, ".")):
        assert Path(str(package.__file__)).resolve().is_relative_to((ROOT / folder).resolve())


def test_no_folder_of_tests_is_called_platform():
    assert not [path for path in (ROOT / "tests").rglob("platform") if path.is_dir()]


def test_a_fresh_gateway_holds_no_control_plane():
    code = (
        "import sys, meterplane.gateway.app\n"
        "roots = {name.partition('.')[0] for name in sys.modules}\n"
        "print(sorted(roots & {'django', 'celery', 'rest_framework', 'stripe', 'billing',"
        " 'tenants'}))\n"
    )
    held = subprocess.run(
        [sys.executable, "-c", code], cwd="/", capture_output=True, text=True, check=True
    ).stdout
    assert held.strip() == "[]"
