"""Real servers for every test process, started when first needed and stopped with it."""

import asyncio
import contextlib
import gc
import importlib
import itertools
import os
import random
import subprocess
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import hypothesis
import pytest
import redis as redis_client
from django.contrib.auth.models import User
from django.db import connections
from django.test import TransactionTestCase
from pytest_django import DjangoDbBlocker

from meterplane.stack.embedded import EmbeddedCommand, postgres, redis
from meterplane.stack.ports import is_free
from tests import cluster, environment
from tests.database import Database
from tests.stripe_schema import recording

ROOT = Path(__file__).resolve().parents[1]
READY_WITHIN_S = 60.0
PORTS_PER_WORKER = 2_500
LOG_LINES_SHOWN = 30
LOG_CHARS_SHOWN = 2_000
# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile(
    "ours", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("ours")
# Files go to whichever worker is free, in the order of their tests. The scenario of a whole stack
# is the longest and needs no database of ours; the second worker makes that, and the others are at
# the journal meanwhile, which needs none either. Then what takes long by file, so that nobody is
# alone with it in the end.
FIRST = ("scenarios/test_the_loop.py", "scenarios/months/test_a_year.py", "journal/")
FIRST += ("scenarios/", "e2e/", "batches/", "billing/", "gateway_grpc/", "gateway/", "metering/")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """What is collected stays until the end: garbage is not looked for among it, then or later."""
    gc.disable()
    try:
        _compile_a_share(session)
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def _compile_a_share(session: pytest.Session) -> None:
    """The workers of a fresh checkout compile its tests between them, not each all of them.

    Each begins with a share of its own, and finds compiled what the others began with.
    """
    worker = getattr(session.config, "workerinput", None)
    if worker is None:
        return
    asked = [Path(argument.partition("::")[0]).resolve() for argument in session.config.args]
    files = sorted({file for path in asked for file in path.rglob("test_*.py")})
    for file in files[int(worker["workerid"].removeprefix("gw")) :: worker["workercount"]]:
        # What cannot be imported is told by the collection.
        with contextlib.suppress(Exception, pytest.skip.Exception):
            importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        file = item.path.relative_to(ROOT / "tests").as_posix()
        return next((n for n, first in enumerate(FIRST) if file.startswith(first)), len(FIRST))

    items.sort(key=place)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails shows what the processes it was given wrote last."""
    report = yield
    if report.failed:
        for name, given in item.funcargs.items():
            log = getattr(given, "log", None)
            if isinstance(log, Path) and log.is_file():
                lines = log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
                report.sections.append((f"log of {name}", "\n".join(lines)))
    return report


@pytest.fixture(autouse=True)
def as_stripe_would_have_it() -> Iterator[None]:
    """Whatever went between us and a sandbox, Stripe could have been asked and could have said."""
    yield
    said = recording.complaints()
    assert not said, "not as at Stripe:\n" + "\n".join(said)


def wait_until(true: Callable[[], bool], what: str, within_s: float = READY_WITHIN_S) -> None:
    """Poll until `true()`; fail the test naming `what` otherwise."""
    deadline = time.monotonic() + within_s
    while not true():
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not happen within {within_s} s")
        time.sleep(0.02)


async def eventually(true: Callable[[], bool], what: str = "it") -> None:
    """`wait_until` beside what goes on in the same loop."""
    deadline = time.monotonic() + READY_WITHIN_S
    while not true():
        assert time.monotonic() < deadline, f"{what} did not happen within {READY_WITHIN_S} s"
        await asyncio.sleep(0.005)


def _ports() -> Iterator[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
    first = 12_000 + PORTS_PER_WORKER * worker
    start = random.SystemRandom().randrange(PORTS_PER_WORKER)  # another run may be beside this one
    for number in itertools.count(start):
        yield first + number % PORTS_PER_WORKER


_next_ports = _ports()


def free_port() -> int:
    """A loopback TCP port nobody listens on, and nobody is given before this process used it.

    Not one of those that the kernel gives to whoever connects (32,768 and up): between being found
    free and being listened on, one of those is taken by a stranger's connection now and then.
    """
    return next(port for port in _next_ports if is_free(port))


def spawn(command: EmbeddedCommand, log: Path, **extra: object) -> "subprocess.Popen[bytes]":
    """Start a server with its output in `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            command.argv,
            env=os.environ | command.env,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=environment.HOME if command.user else None,
            **command.account(),
            **extra,  # type: ignore[arg-type]
        )


def stop(process: "subprocess.Popen[bytes]", within_s: float = 10) -> None:
    """Ask a server to stop; insist after `within_s`."""
    process.terminate()
    _see_end(process, within_s)


def _see_end(process: "subprocess.Popen[bytes]", within_s: float) -> None:
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


_ending: list[tuple["subprocess.Popen[bytes]", float]] = []


def stop_beside(process: "subprocess.Popen[bytes]", within_s: float) -> None:
    """Ask a server of the whole session to stop; it may take its time while others do, too."""
    process.terminate()
    _ending.append((process, within_s))


def pytest_sessionfinish() -> None:
    while _ending:
        _see_end(*_ending.pop())


def redis_server(role: redis.Role) -> Iterator[None]:
    """One Redis of this test process, while it is asked for."""
    home = environment.HOME / f"redis-{role}"
    command = redis.redis_command(home, role=role, password=environment.REDIS_PASSWORD)
    process = spawn(command, environment.HOME / "logs" / f"redis-{role}.log")
    try:
        wait_until(lambda: redis.is_ready(environment.redis_url(role)), f"the {role} answering")
        yield
    finally:
        stop(process)


@pytest.fixture(scope="session")
def admission_redis() -> Iterator[None]:
    """The admission Redis of this test process."""
    yield from redis_server("admission")


def postgres_server(home: Path) -> "subprocess.Popen[bytes]":
    """The PostgreSQL of `home`, answering."""
    admin = postgres.url(
        home, user="postgres", password=environment.SUPERUSER_PASSWORD, database="postgres"
    )
    command = postgres.postgres_command(home, durable=False)
    process = spawn(command, environment.HOME / "logs" / "postgres.log")
    wait_until(lambda: postgres.is_ready(admin), "PostgreSQL answering")
    return process


@pytest.fixture(scope="session")
def servers(admission_redis: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """PostgreSQL with the migrated database, and both Redis instances, of this test process."""
    home = environment.HOME / "postgres"
    with django_db_blocker.unblock():
        cluster.copy_to(home, postgres_server)
    process = postgres_server(home)
    try:
        yield from redis_server("broker")
    finally:
        stop(process)


@pytest.fixture(scope="session")
def django_db_setup(servers: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """The database, connected to as the app's role."""
    yield
    if _databases:
        _databases.pop().close()
    with django_db_blocker.unblock():
        connections.close_all()


_databases: list[Database] = []


def superuser() -> Database:
    """The superuser's view of this process's database."""
    if not _databases:
        _databases.append(Database())
    return _databases[0]


def _after_a_test_that_committed(_case: TransactionTestCase) -> None:
    connections.close_all()
    superuser().empty()


TransactionTestCase._fixture_teardown = _after_a_test_that_committed  # type: ignore[attr-defined]


@pytest.fixture
def redis_url(admission_redis: None) -> str:
    """The admission Redis of this test process, empty."""
    address = environment.redis_url("admission")
    with redis_client.Redis.from_url(address) as connection:
        connection.flushall()
    return address


@dataclass(slots=True, eq=False)
class TritonServer:
    """A running Triton, on ports that stay its own."""

    home: Path
    repository: Path
    http_port: int
    grpc_port: int
    metrics_port: int
    log: Path
    process: "subprocess.Popen[bytes]" = field(init=False)

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def grpc_url(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def metrics_url(self) -> str:
        return f"http://127.0.0.1:{self.metrics_port}/metrics"

    def start(self) -> None:
        """Return when all its models are ready."""
        from meterplane.stack.embedded import triton as embedded

        command = embedded.triton_command(
            home=self.home,
            repository=self.repository,
            http_port=self.http_port,
            grpc_port=self.grpc_port,
            metrics_port=self.metrics_port,
        )
        process = self.process = spawn(command, self.log, start_new_session=True)
        is_ready = embedded.wait_ready(
            self.http_url, READY_WITHIN_S, alive=lambda: process.poll() is None
        )
        if not is_ready:
            stop(process)
            pytest.fail(self.said())

    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-LOG_CHARS_SHOWN:]


_tritons: list[TritonServer] = []


@contextlib.contextmanager
def triton_server(name: str, repository: Path) -> Iterator[TritonServer]:
    """Real Triton for all tests of this process, with the models in `repository`."""
    ports = free_port(), free_port(), free_port()
    log = environment.HOME / "logs" / f"{name}.log"
    server = TritonServer(environment.HOME / name, repository, *ports, log)
    server.start()
    _tritons.append(server)
    try:
        yield server
    finally:
        _tritons.remove(server)
        stop_beside(server.process, 20)


@pytest.fixture(autouse=True)
def no_triton_ended() -> Iterator[None]:
    """One that ends by itself fails the test that it ended in, and not all that come after.

    NVIDIA's 2.51 may: an answer of a gRPC stream can be done and its state released before the
    thread that asked for it has noted it (the server's issues 7472 and 8034).
    """
    yield
    for server in _tritons:
        code = server.process.poll()
        if code is not None:
            said = server.said()
            server.start()
            pytest.fail(f"{server.log.stem} ended with {code}:\n{said}")


@pytest.fixture(scope="session")
def triton() -> Iterator[TritonServer]:
    """Real Triton with the sample models, one per test process."""
    with triton_server("triton", ROOT / "infra/triton/model_repository") as server:
        yield server


@dataclass(frozen=True, slots=True)
class OnboardedOrganisation:
    """A fresh tenant: an organisation with a project, an owner and one API key."""

    id: UUID
    slug: str
    project_id: UUID
    owner: User
    owner_password: str
    key_id: UUID
    secret: str


@pytest.fixture
def onboard(db: None, redis_url: str) -> Callable[..., OnboardedOrganisation]:
    """Make as many tenants as a test needs: `onboard("acme", monthly_budget_nano=...)`."""
    from tenants.keys import issue_key
    from tenants.onboard import create_organisation

    def make(slug: str, **extra: object) -> OnboardedOrganisation:
        password = "correct horse battery staple"
        made = create_organisation(
            slug=slug,
            name=slug.title(),
            owner_email=f"owner@{slug}.example",
            owner_password=password,
            **extra,  # type: ignore[arg-type]
        )
        issued = issue_key(
            tenant_id=made.organisation.id, project_id=made.project.id, name="first key"
        )
        return OnboardedOrganisation(
            made.organisation.id,
            slug,
            made.project.id,
            made.owner,
            password,
            issued.key.id,
            issued.secret,
        )

    return make


@pytest.fixture
def organisation(onboard: Callable[..., OnboardedOrganisation]) -> OnboardedOrganisation:
    """One fresh tenant."""
    return onboard("acme")
