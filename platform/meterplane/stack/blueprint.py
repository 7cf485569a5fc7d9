"""What a whole stack consists of, and in which order it can start.

Everything independent starts at once. Whatever the environment says is elsewhere is left out and
waited for by nobody: its absence shows in the component that needs it.
"""

import errno
import signal
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from meterplane.stack import demo_progress, environment, external, installation, probes, webhook
from meterplane.stack.component import Component, Launch
from meterplane.stack.embedded import EmbeddedCommand, postgres, redis, triton
from meterplane.stack.layout import ROOT, Layout
from meterplane.stack.ports import LOOPBACK, Ports
from meterplane.stack.servers import Servers

MODEL_REPOSITORY = ROOT / "infra" / "triton" / "model_repository"
GATEWAY_WORKER = "local"
GRPC_WORKER = "local-grpc"
WORKER_PROCESSES = 2
BATCHES_AT_ONCE = 4
TEXT_BUSY_ATTEMPTS = 10
TEXT_BUSY_PAUSE_S = 0.05
# Steps of the application that come after the tables exist.
_TABLES = "migrate"


@dataclass(frozen=True, slots=True)
class Blueprint:
    """The components of one stack."""

    layout: Layout
    ports: Ports
    servers: Servers
    with_demo: bool = True

    def components(self) -> list[Component]:
        """All of them; each names in `after` only ones that come before it."""
        chosen = [
            *self._databases(),
            *self._inference(),
            *self._payments(),
            *self._application(),
            *(self._demo() if self.with_demo else []),
        ]
        present = {component.name for component in chosen}
        return [_without_absent(component, present) for component in chosen]

    # -- servers from wheels

    def _databases(self) -> list[Component]:
        made: list[Component] = []
        if self.servers.is_ours("postgres"):
            maintenance = postgres.url(
                self.layout.postgres,
                user=postgres.SUPERUSER,
                password=self._secrets().postgres_password,
                database="postgres",
            )
            made.append(
                Component(
                    name="postgres",
                    title="PostgreSQL",
                    prepare=self._postgres,
                    ready=lambda _: postgres.is_ready(maintenance),
                    healthy=lambda _: postgres.is_ready(maintenance),
                    stop_signal=signal.SIGINT,  # end sessions, then stop; SIGTERM would wait
                    stop_within_s=20,
                )
            )
        if self.servers.is_ours("broker"):
            made.append(self._redis("broker", "Redis, broker", self.servers.redis_url))
        if self.servers.is_ours("admission"):
            made.append(
                self._redis("admission", "Redis, admission", self.servers.admission_redis_url)
            )
        made.append(
            Component(
                name="roles",
                title="Database roles",
                kind="step",
                prepare=self._roles,
                after=("postgres",),
            )
        )
        return made

    def _postgres(self) -> Launch:
        postgres.prepare(self.layout.postgres, self._secrets().postgres_password)
        return _embedded(postgres.postgres_command(self.layout.postgres), self.layout.postgres)

    def _redis(self, role: redis.Role, title: str, url: str) -> Component:
        home = self.layout.broker if role == "broker" else self.layout.admission
        secrets = self._secrets()
        password = secrets.broker_password if role == "broker" else secrets.admission_password
        return Component(
            name=role,
            title=title,
            prepare=lambda: _embedded(redis.redis_command(home, role=role, password=password)),
            ready=lambda _: redis.is_ready(url),
            healthy=lambda _: redis.is_ready(url),
        )

    def _roles(self) -> None:
        external.provide_roles(self.servers, self._secrets(), ROOT / "infra" / "postgres")

    def _inference(self) -> list[Component]:
        if not self.servers.is_ours("triton"):
            return []
        probe = probes.http(f"{self.servers.triton_url}/v2/health/ready")
        return [
            Component(
                name="triton",
                title="Triton",
                prepare=self._triton,
                ready=probe,
                healthy=probe,
                ready_within_s=90,
                url=self.servers.triton_url,
            )
        ]

    def _triton(self) -> Launch:
        attempts = 0
        while True:
            try:
                return _embedded(
                    triton.triton_command(
                        home=self.layout.triton,
                        repository=MODEL_REPOSITORY,
                        http_port=self.ports.numbers["triton"],
                        grpc_port=self.ports.numbers["triton-grpc"],
                        metrics_port=self.ports.numbers["triton-metrics"],
                    )
                )
            except OSError as error:
                # It copies a program and runs it. A child that is forked in between holds the
                # copy open for writing until its own exec, and then the kernel refuses to run it.
                attempts += 1
                if error.errno != errno.ETXTBSY or attempts == TEXT_BUSY_ATTEMPTS:
                    raise
            time.sleep(TEXT_BUSY_PAUSE_S)

    def _payments(self) -> list[Component]:
        """None where nothing is collected through a provider."""
        if not environment.has_provider():
            return []
        made: list[Component] = []
        if self.servers.is_ours("stripe"):
            probe = probes.http(f"{self.servers.stripe_api_base}/healthz")
            made.append(
                Component(
                    name="stripe",
                    title="Stripe sandbox",
                    prepare=self._sandbox,
                    ready=probe,
                    healthy=probe,
                    url=self.servers.stripe_api_base,
                )
            )
        made.append(
            Component(
                name="webhook",
                title="Webhook endpoint",
                kind="step",
                prepare=lambda: webhook.register(self.layout, self.servers),
                after=("stripe",),
            )
        )
        return made

    def _sandbox(self) -> Launch:
        return self._python(
            "-m",
            "stripe_sandbox",
            "--port",
            str(self.ports.numbers["stripe"]),
            "--data",
            str(self.layout.sandbox),
            "--key",
            self.servers.stripe_api_key,
            env={},
        )

    # -- our own processes

    def _application(self) -> list[Component]:
        web = f"http://{LOOPBACK}:{self.ports.numbers['web']}/healthz"
        gateway = f"http://{LOOPBACK}:{self.ports.numbers['gateway']}"
        return [
            Component(
                name="assets",
                title="Portal assets",
                kind="step",
                prepare=lambda: self._manage("collect_assets"),
            ),
            Component(
                name=_TABLES,
                title="Database tables",
                kind="step",
                prepare=lambda: self._manage("migrate", "--no-input", "--skip-checks", owner=True),
                after=("roles",),
                ready_within_s=300,
            ),
            Component(
                name="gateway",
                title="Gateway",
                prepare=self._gateway,
                after=(_TABLES, "admission", "triton"),
                ready=probes.http(f"{gateway}/readyz"),
                healthy=probes.http(f"{gateway}/healthz"),
                backoff_first_s=0.05,
                stop_within_s=30,
                url=self.servers.gateway_url,
            ),
            *self._grpc_gateway(),
            self._celery("worker", "Worker", b" ready.", *_worker_options()),
            self._celery("batches", "Batch worker", b" ready.", *_batch_worker_options()),
            self._celery("beat", "Schedule", b"beat: Starting", *_beat_options(self.layout)),
            Component(
                name="shipper",
                title="Journal shipper",
                prepare=lambda: self._manage("ship_journal", "--skip-checks"),
                after=(_TABLES, "broker"),
                ready=probes.logged(b"shipping "),
            ),
            Component(
                name="web",
                title="Portal, API, console",
                prepare=self._web,
                after=(_TABLES, "broker", "admission", "webhook", "assets"),
                ready=probes.http(web),
                healthy=probes.http(web),
                url=self.servers.web_url,
            ),
        ]

    def _gateway(self) -> Launch:
        port = self.ports.numbers["gateway"]
        values = environment.data_plane(
            self.layout, self.servers, self._secrets(), port=port, worker=GATEWAY_WORKER
        )
        values["GATEWAY_METRICS_PORT"] = str(self.ports.numbers["gateway-metrics"])
        return self._python("-m", "meterplane.gateway", env=values)

    def _grpc_gateway(self) -> list[Component]:
        """Not where an external Triton's gRPC is not known."""
        if not self.servers.grpc_address:
            return []
        values = environment.grpc_plane(
            self.layout,
            self.servers,
            self._secrets(),
            port=self.ports.numbers["gateway-grpc"],
            worker=GRPC_WORKER,
        )
        operator = self.ports.url("gateway-grpc-metrics")
        values["GATEWAY_METRICS_PORT"] = str(self.ports.numbers["gateway-grpc-metrics"])
        return [
            Component(
                name="gateway-grpc",
                title="Gateway, gRPC",
                prepare=lambda: self._python("-m", "meterplane.gateway.kserve_grpc", env=values),
                after=(_TABLES, "admission", "triton"),
                ready=probes.http(f"{operator}/readyz"),
                healthy=probes.http(f"{operator}/healthz"),
                backoff_first_s=0.05,
                stop_within_s=45,
                url=self.servers.grpc_address,
            )
        ]

    def _celery(self, name: str, title: str, mark: bytes, *options: str) -> Component:
        return Component(
            name=name,
            title=title,
            prepare=lambda: self._python(
                "-m",
                "celery",
                "-A",
                "meterplane.worker",
                *options,
                # As for our own commands: Django's checks import every view, and tests run them.
                env=self._control_plane() | {"CELERY_SKIP_CHECKS": "1"},
            ),
            after=(_TABLES, "broker", "admission", "webhook"),
            ready=probes.logged(mark),
            stop_within_s=20,
        )

    def _web(self) -> Launch:
        return self._python(
            "-m",
            "uvicorn",
            "meterplane.asgi:application",
            "--host",
            LOOPBACK,
            "--port",
            str(self.ports.numbers["web"]),
            "--lifespan",
            "off",
            "--no-server-header",
            "--timeout-graceful-shutdown",
            "5",
            env=self._control_plane(),
        )

    def _demo(self) -> list[Component]:
        return [
            Component(
                name="demo",
                title="Demo organisation",
                kind="step",
                prepare=lambda: self._manage("seed_demo", pays=True),
                after=(_TABLES, "admission", "webhook"),
            ),
            Component(
                name="history",
                title="Demo history",
                kind="step",
                background=True,
                prepare=self._history,
                after=("demo", "worker", "shipper", "web"),
                ready_within_s=600,
            ),
        ]

    def _history(self) -> Launch | None:
        if demo_progress.is_complete(self.layout):
            return None
        return self._manage("seed_demo_history", pays=True)

    # -- how they are started

    def _secrets(self) -> installation.Secrets:
        return installation.load(self.layout)

    def _control_plane(self) -> dict[str, str]:
        return environment.control_plane(self.layout, self.servers, self._secrets())

    def _manage(self, *arguments: str, owner: bool = False, pays: bool = False) -> Launch:
        values = self._control_plane()
        if owner:
            values |= environment.migration(self.servers)
        if not pays:
            values |= environment.without_payments()
        return self._python(str(ROOT / "manage.py"), *arguments, env=values)

    def _python(self, *arguments: str, env: dict[str, str]) -> Launch:
        return Launch((sys.executable, *arguments), environment.inherited() | env, cwd=ROOT)


def _embedded(command: EmbeddedCommand, cwd: Path | None = None) -> Launch:
    return Launch(tuple(command.argv), environment.bare() | command.env, command.account(), cwd=cwd)


def _worker_options() -> tuple[str, ...]:
    return (
        *("worker", "--loglevel", "INFO", "--hostname", "worker@%h", "--queues", "celery"),
        *("--concurrency", str(WORKER_PROCESSES)),
    )


def _batch_worker_options() -> tuple[str, ...]:
    """Threads: a batch waits for answers far more than it computes."""
    return (
        *("worker", "--loglevel", "INFO", "--hostname", "batches@%h", "--queues", "batches"),
        *("--pool", "threads", "--concurrency", str(BATCHES_AT_ONCE)),
    )


def _beat_options(layout: Layout) -> tuple[str, ...]:
    return ("beat", "--loglevel", "INFO", "--schedule", str(layout.var / "beat-schedule"))


def _without_absent(component: Component, present: set[str]) -> Component:
    """An external server is nobody's component, so nobody waits for it."""
    return replace(component, after=tuple(name for name in component.after if name in present))
