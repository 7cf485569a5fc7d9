"""The only doors to tenant rows.

`tenant_scope` opens one organisation's rows, `system_scope` opens all of them for jobs and
operators. Outside a door the default manager raises and PostgreSQL's row-level security errors:
each layer refuses by itself. A door is a transaction; its settings are `SET LOCAL`, so a pooled
connection carries nothing over to the next tenant.

Does not know who the user is: permission is decided before a door is opened.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from django.db import connection, models, transaction
from django.db.backends.utils import CursorWrapper

from meterplane.kernel.ids import uuid7


class TenantScopeMissing(RuntimeError):
    """A tenant's rows were asked for outside a door, or through the wrong one. Our own fault."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The open door: one tenant's, or the system's with the reason it was opened for."""

    tenant_id: UUID | None
    reason: str


_scope: ContextVar[Scope | None] = ContextVar("meterplane_scope", default=None)


def current_scope() -> Scope:
    """The open door. Raises `TenantScopeMissing` when there is none."""
    scope = _scope.get()
    if scope is None:
        raise TenantScopeMissing(
            "rows of tenants are reached through tenant_scope(tenant_id) or system_scope(reason)"
        )
    return scope


def current_tenant_id() -> UUID:
    """The organisation whose door is open. Raises `TenantScopeMissing` in any other case."""
    tenant_id = current_scope().tenant_id
    if tenant_id is None:
        raise TenantScopeMissing("this needs one tenant's door, and the system's is open")
    return tenant_id


@contextmanager
def tenant_scope(tenant_id: UUID) -> Iterator[None]:
    """Open one organisation's rows inside a transaction. Nests with itself and in the system's.

    Raises `TenantScopeMissing` when another organisation's door is open.
    """
    outer = _scope.get()
    if outer is not None and outer.tenant_id is not None and outer.tenant_id != tenant_id:
        raise TenantScopeMissing(f"the door of {outer.tenant_id} is open; close it first")
    is_first = not connection.in_atomic_block  # nothing is set, and its end undoes SET LOCAL
    with transaction.atomic(), connection.cursor() as cursor:
        before = "" if is_first else _tenant_in_postgresql(cursor)
        leaves_system = outer is not None and outer.tenant_id is None
        if leaves_system:
            cursor.execute("SET LOCAL ROLE NONE")
        cursor.execute("SELECT set_config('app.tenant_id', %s, true)", [str(tenant_id)])
        token = _scope.set(Scope(tenant_id, outer.reason if outer else ""))
        try:
            yield
        finally:
            _scope.reset(token)
        # Reached without an exception only: a rollback undoes SET LOCAL by itself.
        if not is_first:
            cursor.execute("SELECT set_config('app.tenant_id', %s, true)", [before])
        if leaves_system:
            cursor.execute("SET LOCAL ROLE meterplane_system")


def _tenant_in_postgresql(cursor: CursorWrapper) -> str:
    cursor.execute("SELECT current_setting('app.tenant_id', true)")
    return cursor.fetchone()[0] or ""


@contextmanager
def system_scope(reason: str) -> Iterator[None]:
    """Open every organisation's rows inside a transaction, for the `reason` given.

    For Celery jobs, sweeps, sign-in and the operator's console. Never for a tenant's request:
    raises `TenantScopeMissing` when a tenant's door is open.
    """
    outer = _scope.get()
    if outer is not None and outer.tenant_id is not None:
        raise TenantScopeMissing("a tenant's request may not open every tenant's rows")
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL ROLE meterplane_system")
        token = _scope.set(Scope(None, reason))
        try:
            yield
        finally:
            _scope.reset(token)
        if outer is None:
            cursor.execute("SET LOCAL ROLE NONE")


M = TypeVar("M", bound=models.Model)


class TenantManager(models.Manager[M]):
    """Rows of the open door only. Raises `TenantScopeMissing` when no door is open."""

    tenant_field = "tenant_id"

    def get_queryset(self) -> models.QuerySet[M]:
        scope = current_scope()
        rows = super().get_queryset()
        if scope.tenant_id is None:
            return rows
        return rows.filter(**{self.tenant_field: scope.tenant_id})

    def any_row(self) -> bool:
        """Whether the open door has a row at all: `exists()` without composing its statement anew,
        for what nearly nobody has and every look at an account asks for."""
        tenant_id = current_scope().tenant_id
        door = "true" if tenant_id is None else f"{self.tenant_field} = %s"
        with connection.cursor() as cursor:
            cursor.execute(
                f"SELECT EXISTS (SELECT FROM {self.model._meta.db_table} WHERE {door})",  # noqa: S608
                [] if tenant_id is None else [tenant_id],
            )
            return bool(cursor.fetchone()[0])


class TenantModel(models.Model):
    """A row that belongs to one organisation.

    The table must also be isolated in its migration: `SELECT meterplane_isolate('table')`.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey("tenants.Organisation", on_delete=models.PROTECT, related_name="+")

    objects: TenantManager[Any] = TenantManager()

    class Meta:
        abstract = True
