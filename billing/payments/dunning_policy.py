"""What is done when an invoice is not paid, as a document, and which one holds.

    {"charge_days": [3, 5, 7], "mail_days": [0, 3, 7, 14], "suspend_day": 14,
     "end_day": null, "end": "keep_open"}

Days count from the first failure to charge, or from the due date of what is not charged. An
organisation has its own policy, or the installation's, or the shipped one. There are three origins
and no mixture: a policy is whole.

Guarantees: a stored policy suspends nobody who was not told before, and ends after everything else.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from billing.payments.models import DunningOverride, DunningPolicy, DunningStep
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from tenants.scoping import current_tenant_id

DAY_MAX = 365
DAYS_MAX = 10  # charges of one invoice, and mails about it
ENDS = ("keep_open", "mark_uncollectible")
Kind = DunningStep.Kind
Origin = Literal["organisation", "installation", "shipped"]


@dataclass(frozen=True, slots=True)
class Policy:
    """A checked document; see the module."""

    charge_days: tuple[int, ...]
    mail_days: tuple[int, ...]
    suspend_day: int | None
    end_day: int | None
    end: str

    @property
    def document(self) -> dict[str, Any]:
        return asdict(self) | {
            "charge_days": list(self.charge_days),
            "mail_days": list(self.mail_days),
        }


@dataclass(frozen=True, slots=True)
class Step:
    """One act of a policy on a case."""

    name: str
    kind: str
    due_at: datetime


SHIPPED = Policy((3, 5, 7), (0, 3, 7, 14), 14, None, "keep_open")
_FIELDS = frozenset(SHIPPED.document)


def schedule(policy: Policy, overdue_at: datetime, *, charges: bool) -> list[Step]:
    """Every act in the order of its instant. Of a day, the mail is last but for the end: it says
    how the charge went, and whether use is suspended."""
    days: list[tuple[int, int, str]] = []
    days += [(day, 0, Kind.CHARGE.value) for day in policy.charge_days if charges]
    days += [(policy.suspend_day, 1, Kind.SUSPEND.value)] if policy.suspend_day is not None else []
    days += [(day, 2, Kind.MAIL.value) for day in policy.mail_days]
    if policy.end_day is not None and policy.end != "keep_open":
        days.append((policy.end_day, 3, Kind.END.value))
    return [
        Step(f"{kind}:{day}", kind, overdue_at + timedelta(days=day))
        for day, _, kind in sorted(days)
    ]


def policy() -> tuple[Policy, Origin]:
    """What holds for the open door's organisation."""
    own = DunningOverride.objects.first()
    if own is not None:
        return checked(own.document), "organisation"
    return installation_policy()


def installation_policy() -> tuple[Policy, Origin]:
    """What holds for every organisation that has none of its own. Needs no door."""
    row = DunningPolicy.objects.first()
    return (SHIPPED, "shipped") if row is None else (checked(row.document), "installation")


def set_policy(document: object, *, by: str) -> Policy:
    """The organisation's own. Raises `CallerError` `dunning_policy_invalid`. Needs its door."""
    made = checked(document)
    DunningOverride.objects.update_or_create(
        tenant_id=current_tenant_id(), defaults=_changed(made, by)
    )
    return made


def use_installation_policy() -> tuple[Policy, Origin]:
    """Forget the organisation's own. Needs its door."""
    DunningOverride.objects.all().delete()
    return policy()


def set_installation_policy(document: object, *, by: str) -> Policy:
    """Raises `CallerError` `dunning_policy_invalid`. Needs the system's door."""
    made = checked(document)
    DunningPolicy.objects.update_or_create(id=1, defaults=_changed(made, by))
    return made


def checked(document: object) -> Policy:
    """A document as a policy. Raises `CallerError` `dunning_policy_invalid` naming the field."""
    if not isinstance(document, Mapping) or set(document) != _FIELDS:
        raise _invalid(f"A policy is an object with exactly {', '.join(sorted(_FIELDS))}.", None)
    made = Policy(
        charge_days=_days(document, "charge_days", at_least=1),
        mail_days=_days(document, "mail_days", at_least=0),
        suspend_day=_day(document, "suspend_day"),
        end_day=_day(document, "end_day"),
        end=document["end"],
    )
    if made.end not in ENDS:
        raise _invalid(f"The end is one of {', '.join(ENDS)}.", "end")
    told = any(day < (made.suspend_day or 0) for day in made.mail_days)
    if made.suspend_day is not None and not told:
        raise _invalid("Use is suspended after at least one mail: name a day.", "mail_days")
    if (made.end_day is None) != (made.end == "keep_open"):
        raise _invalid("An end day goes with mark_uncollectible, and with nothing else.", "end_day")
    last = max((*made.charge_days, *made.mail_days, made.suspend_day or 0))
    if made.end_day is not None and made.end_day < last:
        raise _invalid(f"The end comes last: on day {last} or later.", "end_day")
    return made


def _days(document: Mapping[Any, Any], field: str, *, at_least: int) -> tuple[int, ...]:
    days = document[field]
    if not isinstance(days, list | tuple) or len(days) > DAYS_MAX:
        raise _invalid(f"A list of at most {DAYS_MAX} days.", field)
    if any(type(day) is not int or not at_least <= day <= DAY_MAX for day in days):
        raise _invalid(f"Days are whole numbers from {at_least} to {DAY_MAX}.", field)
    if sorted(set(days)) != list(days):
        raise _invalid("Days rise, and none is there twice.", field)
    return tuple(days)


def _day(document: Mapping[Any, Any], field: str) -> int | None:
    day = document[field]
    if day is not None and (type(day) is not int or not 1 <= day <= DAY_MAX):
        raise _invalid(f"A day is a whole number from 1 to {DAY_MAX}, or null for never.", field)
    found: int | None = day
    return found


def _changed(made: Policy, by: str) -> dict[str, Any]:
    return {"document": made.document, "changed_by": by[:120], "changed_at": clock.now()}


def _invalid(message: str, field: str | None) -> CallerError:
    return CallerError("dunning_policy_invalid", message, field=field)
