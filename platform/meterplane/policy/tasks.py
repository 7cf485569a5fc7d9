"""Celery's entries into policies. Each may be lost or doubled without harm."""

from celery import shared_task

from meterplane.policy import alerts, grants, learn, reap, stranded
from meterplane.policy import follow_credit as credit
from meterplane.policy import follow_prices as follow


@shared_task(name="policy.learn_reservations")
def learn_reservations() -> None:
    """What a week of usage says about reservations."""
    learn.learn_reservations()


@shared_task(name="policy.credit_grants")
def credit_grants() -> None:
    """Blocks whose gateway died before it credited them."""
    grants.credit_uncredited()


@shared_task(name="policy.fold_grants")
def fold_grants() -> None:
    """Few rows for many grants."""
    grants.fold_grants()


@shared_task(name="policy.follow_prices")
def follow_prices() -> None:
    """Prices and contracts that begin to apply by the clock alone."""
    follow.follow_prices()


@shared_task(name="policy.follow_credit")
def follow_credit() -> None:
    """What credit covers where time alone, or usage that arrives, says otherwise."""
    credit.follow_credit()


@shared_task(name="policy.return_stranded_grants")
def return_stranded_grants() -> None:
    """What a lost Redis had been granted and nobody spent."""
    stranded.return_stranded()


@shared_task(name="policy.reap_reservations")
def reap_reservations() -> None:
    """What requests hold that are over, and that nobody is left to settle."""
    reap.reap_reservations()


@shared_task(name="policy.raise_alerts")
def raise_alerts() -> None:
    """What limits somebody is to be told of."""
    alerts.raise_alerts()
