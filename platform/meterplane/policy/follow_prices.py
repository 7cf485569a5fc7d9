"""Policies follow prices and contracts that begin to apply by the clock alone.

What is published or agreed on from an instant to come changes nothing when it is written. Once its
time has come, the policies of those it concerns say another version than applies: each is found by
that difference, and compiled anew. Nothing is marked, so a sweep that is missed is made up for.
"""

from uuid import UUID

from django.db import connection

from billing.pricing.contract_queries import book_of_tenant
from meterplane.kernel import clock
from meterplane.policy.compile import recompile
from tenants.scoping import system_scope, tenant_scope

_SAID = "SELECT DISTINCT tenant_id, document ->> 'price_version_id' FROM gateway_policy ORDER BY 1"


def follow_prices() -> int:
    """Compile the policies that say another version than applies; how many tenants had one."""
    with system_scope("which price versions policies say"), connection.cursor() as cursor:
        cursor.execute(_SAID)
        said: list[tuple[UUID, str]] = cursor.fetchall()
    followed = set()
    for tenant_id, version_id in said:
        if tenant_id in followed:
            continue
        with tenant_scope(tenant_id):
            book = book_of_tenant(clock.now())
            if str(book.version_id if book is not None else UUID(int=0)) != version_id:
                recompile(tenant_id)
                followed.add(tenant_id)
    return len(followed)
