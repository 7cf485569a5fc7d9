"""The organisation an address names."""

from meterplane.kernel.errors import CallerError
from tenants.models import Organisation
from tenants.queries import organisation_by_slug
from tenants.scoping import system_scope


def named_organisation(slug: str) -> Organisation:
    """The organisation, with its plan. Raises `CallerError` `organisation_not_found`."""
    with system_scope("an operator key names an organisation"):
        organisation = organisation_by_slug(slug)
    if organisation is None:
        raise CallerError("organisation_not_found", f"No organisation {slug!r}.", status=404)
    return organisation
