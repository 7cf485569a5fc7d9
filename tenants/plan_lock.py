"""A plan, and who is on it, change one after the other.

A change of a plan compiles the organisations it finds on it; whoever joins meanwhile would be
compiled with what the plan said before, and not be found. So both lock the plan, and that before
any organisation.
"""

from tenants.models import Plan


def locked_plan(slug: str) -> Plan | None:
    """The plan, until the end of the transaction.

    FOR NO KEY UPDATE: a foreign key to it can be checked meanwhile.
    """
    return Plan.objects.select_for_update(no_key=True).filter(slug=slug).first()
