"""The Triton of the wheel: it starts on a bare machine, says why when it cannot, leaves nothing."""

import json
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from meterplane.stack.embedded import EmbeddedCommand, EmbeddedUnavailable, triton
from tests.conftest import free_port, wait_until
from tests.triton.sources import REPOSITORY

Start = Callable[[], "tuple[subprocess.Popen[bytes], str]"]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Only the model that loads in no time."""
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "identity").symlink_to(REPOSITORY / "identity")
    return folder


def command(home: Path, repository: Path, http_port: int = 1) -> EmbeddedCommand:
    return triton.triton_command(
        home=home,
        repository=repository,
        http_port=http_port,
        grpc_port=free_port(),
        metrics_port=free_port(),
    )


@pytest.fixture
def start(tmp_path: Path, repository: Path) -> Iterator[Start]:
    """Start a server with nothing but the command's own environment; wait until it is ready."""
    started: list[subprocess.Popen[bytes]] = []

    def begin() -> "tuple[subprocess.Popen[bytes], str]":
        port = free_port()
        made = command(tmp_path / "home", repository, port)
        with (tmp_path / "log").open("ab") as log:
            process = subprocess.Popen(made.argv, env=made.env, stdout=log, stderr=log)
        started.append(process)
        url = f"http://127.0.0.1:{port}"
        assert triton.wait_ready(url, 90, alive=lambda: process.poll() is None), (
            tmp_path / "log"
        ).read_text()[-2000:]
        return process, url

    yield begin
    for process in started:
        process.kill()
        process.wait()


def stubs(home: Path) -> list[int]:
    """Processes started from the backend folder in `home`."""
    wanted = str(home / "backends/python/triton_python_backend_stub").encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cmdline").read_bytes().split(b"\0")[0] == wanted:
                found.append(int(entry.name))
        except OSError:
            continue  # ended meanwhile
    return found


def shared_memory(home: Path) -> list[Path]:
    return list(Path("/dev/shm").glob(f"{triton._shared_memory_prefix(home)}*"))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_or_killed_server_leaves_no_process_and_no_memory(start, tmp_path, how):
    process, url = start()
    home = tmp_path / "home"
    assert len(stubs(home)) == 1
    assert shared_memory(home)
    process.send_signal(how)
    process.wait(15)
    wait_until(lambda: not stubs(home), "the stub ending")
    command(home, REPOSITORY)  # what a new start does first
    assert shared_memory(home) == []
    assert not triton.wait_ready(url, 0.2)


def test_a_server_killed_in_the_middle_of_streams_leaves_no_process(start, tmp_path, repository):
    """A stub that is sending at that moment waits for its server for ever, left to itself."""
    (repository / "tiny-lm").symlink_to(REPOSITORY / "tiny-lm")
    process, url = start()
    sampling = json.dumps({"max_tokens": 4096, "ignore_eos": True})
    body = json.dumps({"text_input": "x", "stream": True, "sampling_parameters": sampling})
    head = "POST /v2/models/tiny-lm/generate_stream HTTP/1.1\r\nhost: x\r\ncontent-length: "
    with ExitStack() as streams:
        for _ in range(10):
            stream = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
            streams.enter_context(stream)
            stream.sendall(f"{head}{len(body)}\r\n\r\n{body}".encode())
            assert stream.recv(15) == b"HTTP/1.1 200 OK"
        process.kill()
        process.wait(15)
    wait_until(lambda: not stubs(tmp_path / "home"), "the stubs ending")


def test_the_checkout_is_left_as_it_was(start, tmp_path):
    """The repository may be read-only, and bytecode beside a model is no part of it."""
    before = set(REPOSITORY.rglob("*"))
    start()
    assert set(REPOSITORY.rglob("*")) == before
    assert list((tmp_path / "home" / "bytecode").rglob("model*.pyc"))


def test_waiting_ends_as_soon_as_the_process_has():
    begun = time.monotonic()
    assert not triton.wait_ready("http://127.0.0.1:9", 30, alive=lambda: False)
    assert time.monotonic() - begun < 5


def test_waiting_ends_in_time_when_nobody_listens():
    begun = time.monotonic()
    assert not triton.wait_ready(f"http://127.0.0.1:{free_port()}", 0.3)
    assert 0.25 < time.monotonic() - begun < 5


def test_preparing_again_changes_nothing(tmp_path, repository):
    """A second start must not pull files from under a server that still runs."""
    command(tmp_path / "home", repository)
    before = {path: path.lstat().st_mtime_ns for path in (tmp_path / "home").rglob("*")}
    command(tmp_path / "home", repository)
    links = {path: at for path, at in before.items() if path.is_symlink()}
    assert links
    assert {path: path.lstat().st_mtime_ns for path in links} == links


def test_another_machine_is_told_what_to_do(tmp_path, repository, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(EmbeddedUnavailable, match="TRITON_URLS"):
        command(tmp_path, repository)


def test_a_python_without_a_stub_is_named(tmp_path, repository, monkeypatch):
    class Version(tuple[int, ...]):
        major, minor = 3, 99

    monkeypatch.setattr(sys, "version_info", Version((3, 99, 0)))
    with pytest.raises(EmbeddedUnavailable, match=r"3\.8, 3\.9, .*3\.12.* this is 3\.99"):
        command(tmp_path, repository)


def test_a_python_without_its_shared_library_is_told_which_package_has_it(monkeypatch, tmp_path):
    monkeypatch.setattr(triton, "SYSTEM_PREFIXES", ())
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: None)
    with pytest.raises(EmbeddedUnavailable, match="apt install libpython"):
        triton._find_libpython(tmp_path)


def test_a_library_of_another_python_brings_its_own_standard_library(monkeypatch, tmp_path):
    """Two patch releases in one process fail in places that name neither."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    system = tmp_path / "usr"
    library = system / "lib" / f"libpython{version}.so.1.0"
    standard = system / "lib" / f"python{version}" / "os.py"
    standard.parent.mkdir(parents=True)
    library.touch()
    monkeypatch.setattr(triton, "SYSTEM_PREFIXES", (system,))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path / "static"))
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: None)
    with pytest.raises(EmbeddedUnavailable):
        triton._find_libpython(tmp_path)
    standard.touch()
    found = triton._find_libpython(tmp_path)
    assert (found.folder, found.python_home) == (system / "lib", system)


def test_a_missing_library_is_named_before_anything_starts(tmp_path):
    stub = tmp_path / "stub"
    stub.write_text("#!/bin/sh\necho 'libmissing.so.1: cannot open shared object' >&2\nexit 127\n")
    stub.chmod(0o755)
    with pytest.raises(EmbeddedUnavailable, match="libmissing"):
        triton._check_stub_loads(stub, {"PATH": "/bin"})
