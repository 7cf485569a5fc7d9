"""The servers `make up` runs when none is given: real PostgreSQL, Redis and Triton from wheels.

Each module says how to start its server (a command, never a started process: the supervisor and
the tests own processes) and how to tell that it is ready.
"""

import pwd
import sys
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class EmbeddedCommand:
    """How to start one server.

    `env` is added to the parent's environment. `user` is the account to run as when we are root
    and the server refuses to be (PostgreSQL); None keeps ours.
    """

    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)
    user: str | None = None

    def account(self) -> dict[str, Any]:
        """Arguments for `subprocess` that drop to `user` whole: uid, gid and no other group."""
        return drop_to(self.user)


def drop_to(user: str | None) -> dict[str, Any]:
    """`subprocess` arguments that run a child as `user`, keeping none of our groups."""
    if user is None:
        return {}
    entry = pwd.getpwnam(user)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


class EmbeddedUnavailable(RuntimeError):
    """The embedded servers do not exist for this machine; the message says what to do instead."""


def require_platform() -> None:
    """Raise `EmbeddedUnavailable` unless on Linux x86-64, which the wheels are built for."""
    import platform

    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise EmbeddedUnavailable(
            "The embedded servers exist for Linux on x86-64 only. Point DATABASE_URL, REDIS_URL, "
            "ADMISSION_REDIS_URL and TRITON_URLS at servers of your own, then start again."
        )
