"""An organisation's standing, compiled into every key's policy the moment it changes."""

from uuid import UUID

from meterplane.kernel.errors import CallerError
from tenants import policy_port
from tenants.models import Organisation
from tenants.scoping import tenant_scope


def set_standing(*, tenant_id: UUID, standing: str, reason: str) -> bool:
    """Set the standing; True if it changed. Raises `CallerError` `standing_unknown`."""
    if standing not in Organisation.Standing.values:
        raise CallerError("standing_unknown", f"{standing!r} is not a standing.", field="standing")
    with tenant_scope(tenant_id):
        organisation = Organisation.objects.select_for_update(no_key=True).get(id=tenant_id)
        if (organisation.standing, organisation.standing_reason) == (standing, reason):
            return False
        organisation.standing = standing
        organisation.standing_reason = reason
        organisation.save(update_fields=["standing", "standing_reason"])
        policy_port.recompile(tenant_id)
    return True
