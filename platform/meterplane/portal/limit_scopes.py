"""An organisation's scopes as people choose them. Needs its door."""

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from meterplane.portal.limit_forms import Choices
from tenants.models import ApiKey, Organisation
from tenants.queries import list_keys, list_projects


@dataclass(frozen=True, slots=True)
class Scope:
    """A level and the id at it, as a form's value: `project:0190...`."""

    level: str
    scope_id: UUID
    name: str

    @property
    def value(self) -> str:
        return f"{self.level}:{self.scope_id}"


def parsed(value: str) -> tuple[str, UUID]:
    """The level and the id of a value that was one of the choices."""
    level, _, scope_id = value.partition(":")
    return level, UUID(scope_id)


def scopes_of(own: Organisation) -> list[Scope]:
    """The organisation, its projects, its active keys, newest first."""
    keys = list_keys().filter(status=ApiKey.Status.ACTIVE)
    return [
        Scope("organisation", own.id, own.name),
        *(Scope("project", project.id, project.name) for project in list_projects()),
        *(Scope("key", key.id, f"{key.name} (…{key.last4})") for key in keys),
    ]


def choices(scopes: list[Scope], but: Collection[tuple[str, UUID]] = ()) -> Choices:
    """Them, or those that are not named, under a heading for each level."""
    headings = {"organisation": "Organisation", "project": "Projects", "key": "API keys"}
    found = [
        (
            heading,
            [
                (each.value, each.name)
                for each in scopes
                if each.level == level and (each.level, each.scope_id) not in but
            ],
        )
        for level, heading in headings.items()
    ]
    return [(heading, group) for heading, group in found if group]
