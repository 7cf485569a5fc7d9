"""Alerts as the portal lists them: what was reached, in words, of which limit and when."""

from dataclasses import dataclass
from datetime import datetime

from meterplane.kernel import amounts
from meterplane.policy.alerts_shown import ShownAlert, list_alerts
from meterplane.portal import limit_words

SCOPES = {"project": "Project", "key": "Key", "key_model": "Key"}


@dataclass(frozen=True, slots=True)
class ListedAlert:
    """`what` is the limit, `where` whose and in which window, `reached` a badge."""

    what: str
    where: str
    model: str
    reached: str
    tone: str
    detail: str
    raised_at: datetime


def listed_alerts(limit: int, currency: str) -> list[ListedAlert]:
    """The newest first. Needs the organisation's door."""
    return [_listed(each, currency) for each in list_alerts(limit)]


def _listed(alert: ShownAlert, currency: str) -> ListedAlert:
    scope = SCOPES.get(alert.level)
    whose = f"{scope} {alert.scope_name}".strip() if scope else ""
    reached, tone = _reached(alert)
    return ListedAlert(
        what=limit_words.label(alert.kind, alert.window),
        where=" · ".join(filter(None, [whose, _window(alert)])),
        model=alert.model,
        reached=reached,
        tone=tone,
        detail=_detail(alert, currency),
        raised_at=alert.raised_at,
    )


def _reached(alert: ShownAlert) -> tuple[str, str]:
    if alert.threshold == "balance":
        return "Low", "warn"
    if alert.threshold == "hit":
        return "Limit hit", "warn" if alert.mode == "notify" else "bad"
    return f"{alert.threshold} % used", "bad" if alert.threshold == "100" else "warn"


def _detail(alert: ShownAlert, currency: str) -> str:
    """`$8.00 of $10.00`, `12 requests refused, limit 60`."""

    def said(quantity: int) -> str:
        return amounts.rounded(quantity, currency) if alert.kind == "spend" else f"{quantity:,}"

    parts = []
    if alert.left is not None and alert.threshold == "balance":
        parts.append(f"{said(alert.left)} left")
    elif alert.used is not None and alert.amount is not None:
        parts.append(f"{said(alert.used)} of {said(alert.amount)}")
    elif alert.amount is not None:
        parts.append(f"limit {said(alert.amount)}")
    if alert.hits:
        requests = "request" if alert.hits == 1 else "requests"
        done = "above it" if alert.mode == "notify" else "refused"
        parts.append(f"{alert.hits:,} {requests} {done}")
    return " · ".join(parts)


def _window(alert: ShownAlert) -> str:
    """Which window, as it is named; of rates the hour it was hit in. Nothing for endless ones."""
    if alert.window in ("second", "minute", "at_once"):
        day, _, hour = alert.label.partition("T")
        return f"{day}, {hour}:00 to {hour}:59"
    return alert.label if alert.window in ("day", "week", "month") else ""
