"""A key that somebody found where everyone can read it: revoked at once, and its owner told.

Whoever holds a live key may end it, so nobody is asked who they are. A finder learns nothing: a key
that is unknown, mistyped or dead is answered like one that was live. The key itself is in no log,
no row and no message.
"""

import re
from uuid import UUID

from django.conf import settings

from meterplane.contracts import api_key
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from tenants.keys import revoke_key
from tenants.models import ApiKey, LeakReport
from tenants.scoping import system_scope, tenant_scope

FOUND_URL_CHARS_MAX = 500
_KEYS = re.compile(rf"(?:{'|'.join(api_key.PREFIXES.values())})[0-9A-Za-z]*")


def report_leak(secret: str, found_url: str = "") -> None:
    """Revoke the key of this secret and note where it was found; nothing if there is no such key.

    A malformed secret costs no read, an unknown one a single read of an index. Reporting a key
    again changes nothing: where the gateways were not told the first time, they are told now.

    Raises `WorldError` when the gateways could not be told; the key is revoked and noted then.
    """
    if not api_key.is_well_formed(secret):
        return
    digest = api_key.digest(secret, settings.API_KEY_PEPPER)
    with system_scope("a leaked key says whose it is"):
        key = ApiKey.objects.filter(digest=digest).first()
    if key is None:
        return
    with tenant_scope(key.tenant_id):
        # Locked: of two finders at once the first is noted, and the other finds it revoked.
        found = ApiKey.objects.select_for_update().get(id=key.id)
        if found.status == ApiKey.Status.ACTIVE:
            LeakReport.objects.create(
                tenant_id=key.tenant_id, key=found, found_url=_shown(found_url)
            )
        revoke_key(tenant_id=key.tenant_id, key_id=key.id)


def dismiss_leak(*, tenant_id: UUID, report_id: UUID, dismissed_by: int) -> None:
    """The owner has seen it. Doing so again changes nothing. Raises `CallerError` 404."""
    with tenant_scope(tenant_id):
        report = LeakReport.objects.select_for_update().filter(id=report_id).first()
        if report is None:
            raise CallerError("leak_not_found", "There is no such report here.", status=404)
        if report.dismissed_at is None:
            report.dismissed_at, report.dismissed_by_id = clock.now(), dismissed_by
            report.save(update_fields=["dismissed_at", "dismissed_by"])


def _shown(url: str) -> str:
    """What is kept of it: one line of what can be printed, without a key that is in it."""
    line = "".join(each for each in url if each.isprintable())
    return _KEYS.sub("mp_…", line)[:FOUND_URL_CHARS_MAX]
