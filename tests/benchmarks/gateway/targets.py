"""What is measured: nothing in between, nginx, and the gateway with its journal in both modes."""

import http.client
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from socket import socket

from tests.benchmarks.gateway.accounts import Account
from tests.benchmarks.gateway.instruments import Instruments
from tests.benchmarks.gateway.processes import Processes

NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr; {user}
events {{ worker_connections 16384; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 75; tcp_nodelay on;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream model {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://model; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


@dataclass(slots=True)
class Target:
    """Something that answers on `port`. `account` is what a gateway owes an account of."""

    name: str
    port: int
    upstream_port: int
    pids: list[int] = field(default_factory=list)
    headers: tuple[str, ...] = ()
    account: Account | None = None
    journal_mode: str = ""


def free_port() -> int:
    """A loopback port nobody listens on right now."""
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def get(port: int, path: str) -> tuple[int, bytes]:
    """A GET; status 0 when nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def served_by(target: Target) -> int:
    """Requests that the target's upstream has answered until now."""
    return int(json.loads(get(target.upstream_port, "/count")[1])["served"])


class Starter:
    """Starts targets; knows the cores and the secret."""

    def __init__(
        self,
        processes: Processes,
        instruments: Instruments,
        *,
        cores: tuple[int, int],
        journals: Path,
        folder: Path,
    ) -> None:
        self.processes = processes
        self.secret = ""
        self.upstream_pids: list[int] = []
        self._instruments = instruments
        self._gateway_core, self.other_core = cores
        self._journals = journals
        self.folder = folder

    def upstream(self, name: str) -> int:
        """An upstream of a target's own, so that what it served can be counted. Its port."""
        port = free_port()
        argv = [str(self._instruments.upstream), str(port)]
        process = self.processes.start(f"upstream-{name}", argv, core=self.other_core)
        self.processes.wait_until(
            lambda: get(port, "/count")[0] == 200, f"upstream-{name}", process
        )
        self.upstream_pids.append(process.pid)
        return port

    def direct(self) -> Target:
        """Nothing in between."""
        port = self.upstream("direct")
        return Target("direct", port, port)

    def nginx(self) -> Target:
        """`proxy_pass`, one worker, connections to the upstream kept."""
        upstream, port = self.upstream("nginx"), free_port()
        folder = self.folder / "nginx"
        folder.mkdir()
        user = "user root;" if os.geteuid() == 0 else ""
        text = NGINX.format(folder=folder, upstream=upstream, port=port, user=user)
        (folder / "nginx.conf").write_text(text)
        argv = [str(self._instruments.nginx), "-p", str(folder), "-c", str(folder / "nginx.conf")]
        process = self.processes.start("nginx", argv, core=self._gateway_core)
        self.processes.wait_until(lambda: get(port, "/count")[0] == 200, "nginx", process)
        return Target("nginx", port, upstream, [process.pid])

    def gateway(self, name: str, mode: str) -> Target:
        """A gateway of this checkout, with an upstream and a journal of its own; not started yet.

        `mode` is `durable` (an answer waits for the disk) or `process` (for the kernel only).
        """
        upstream, port = self.upstream(name), free_port()
        headers = (f"Authorization: Bearer {self.secret}",)
        account = Account(name, self._journals / name)
        return Target(name, port, upstream, [], headers, account, mode)

    def launch(self, target: Target) -> "subprocess.Popen[bytes]":
        """Start a gateway's process; it does not answer yet."""
        variables = os.environ | {
            "GATEWAY_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(target.port),
            "GATEWAY_WORKER": target.name,
            "JOURNAL_DIR": str(self._journals / target.name),
            "JOURNAL_MODE": target.journal_mode,
            "TRITON_URLS": f"http://127.0.0.1:{target.upstream_port}",
        }
        process = self.processes.start(
            target.name,
            [sys.executable, "-m", "meterplane.gateway"],
            core=self._gateway_core,
            env=variables,
        )
        target.pids = [process.pid]
        return process

    def run(self, target: Target) -> "subprocess.Popen[bytes]":
        """Start a gateway; returns when it is ready."""
        process = self.launch(target)
        self.processes.wait_until(
            lambda: get(target.port, "/readyz")[0] == 200, target.name, process
        )
        return process
