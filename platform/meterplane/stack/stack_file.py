"""`var/stack.json`: addresses, logins and pids of the running stack, for scripts and tests.

Private, because the demo's secrets are in it. It exists while the stack is ready and no longer.
"""

import msgspec

from meterplane.stack.installation import Login, Secrets
from meterplane.stack.layout import Layout, write_private
from meterplane.stack.record import StackRecord
from meterplane.stack.servers import Servers


class StackFile(msgspec.Struct, frozen=True, kw_only=True):
    """The file's content. `database` is the administrative URL; `grpc` is `host:port`,
    null where it is not served.
    """

    gateway: str
    grpc: str | None
    metrics: str
    web: str
    stripe: str
    triton: str
    database: str
    redis: str
    api_key: str
    admin_key: str
    logins: dict[str, Login]
    pids: dict[str, int]


def publish(layout: Layout, servers: Servers, secrets: Secrets, record: StackRecord) -> StackFile:
    """Replace the file by what is so now."""
    content = StackFile(
        gateway=servers.gateway_url,
        grpc=servers.grpc_address or None,
        metrics=servers.metrics_url,
        web=servers.web_url,
        stripe=servers.stripe_api_base,
        triton=servers.triton_url,
        database=servers.admin_database_url,
        redis=servers.redis_url,
        api_key=secrets.demo_api_key,
        admin_key=secrets.admin_key,
        logins={"owner": secrets.owner, "operator": secrets.operator},
        pids={each.name: each.process.pid for each in record.components if each.process},
    )
    write_private(layout.stack, msgspec.json.format(msgspec.json.encode(content)) + b"\n")
    return content


def read(layout: Layout) -> StackFile | None:
    """The file of the running stack; None when there is none."""
    try:
        return msgspec.json.decode(layout.stack.read_bytes(), type=StackFile)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def withdraw(layout: Layout) -> None:
    """The stack cannot be used any more."""
    layout.stack.unlink(missing_ok=True)
