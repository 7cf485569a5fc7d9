"""Celery's entries into policies. Each may be lost or doubled without harm."""

from celery import shared_task

from meterplane.policy import learn


@shared_task(name="policy.learn_reservations")
def learn_reservations() -> None:
    """What a week of usage says about reservations."""
    learn.learn_reservations()
