"""What tenants need of whoever compiles gateway policies, which lives above them.

The compiler registers itself once, when Django starts. Every verb that changes what a key may do
calls `recompile` inside its own transaction, so the change and the compiled row commit together.
"""

from typing import Protocol
from uuid import UUID

from meterplane.kernel.invariant import ensure


class PolicyCompiler(Protocol):
    """Recompiles every key of an organisation, in the caller's transaction and tenant door.

    After commit it must not return to the caller before the gateways obey the new version.
    """

    def __call__(self, tenant_id: UUID) -> None: ...


_compiler: PolicyCompiler | None = None


def register(compiler: PolicyCompiler) -> None:
    """Called once by the policy app."""
    global _compiler
    _compiler = compiler


def recompile(tenant_id: UUID) -> None:
    """Recompile the organisation's keys now, inside the open transaction."""
    ensure(_compiler is not None, "the policy app is installed and has registered its compiler")
    if _compiler is not None:
        _compiler(tenant_id)
