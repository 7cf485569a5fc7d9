"""What a run measures with: an upstream and a client in C, a script for wrk, nginx beside us."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).parent
WRK_SCRIPT = SOURCES / "chat.lua"
# Tool -> the Debian and Ubuntu package that has it.
PACKAGES = {"cc": "gcc libc6-dev", "wrk": "wrk", "taskset": "util-linux", "setpriv": "util-linux"}
NGINX_PACKAGE = "nginx-light"


class InstrumentMissing(Exception):
    """This machine lacks a tool; the message says how to get it."""


@dataclass(frozen=True, slots=True)
class Instruments:
    """Paths of everything that is started; `nginx` is None where there is none."""

    upstream: Path
    client: Path
    wrk: str
    nginx: str | None


def prepare(folder: Path, *, want_nginx: bool) -> Instruments:
    """Build the C programs into `folder`. Raises `InstrumentMissing`."""
    missing = [tool for tool in PACKAGES if shutil.which(tool) is None]
    if missing:
        packages = sorted({PACKAGES[tool] for tool in missing})
        raise InstrumentMissing(
            f"This benchmark needs {', '.join(missing)}. Install it:"
            f" apt-get install {' '.join(packages)}"
        )
    # Debian keeps nginx in /usr/sbin, which is not on every user's path.
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if want_nginx and nginx is None:
        print(f"  no nginx here, so no row for it (apt-get install {NGINX_PACKAGE})")
    return Instruments(
        upstream=build("upstream", folder),
        client=build("client", folder),
        wrk=str(shutil.which("wrk")),
        nginx=nginx if want_nginx else None,
    )


def build(name: str, folder: Path) -> Path:
    """Compile one of the C programs into `folder`. Raises `InstrumentMissing`."""
    if shutil.which("cc") is None:
        raise InstrumentMissing(f"{name}.c needs a compiler: apt-get install {PACKAGES['cc']}")
    built = folder / name
    command = ["cc", "-O2", "-Wall", "-Wextra", "-o", str(built), str(SOURCES / f"{name}.c")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InstrumentMissing(f"{name}.c does not compile here:\n{done.stderr}")
    return built
