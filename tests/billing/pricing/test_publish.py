"""Published prices cannot change, by code or by hand, and exactly one version applies at a time."""

import json
from datetime import UTC, datetime, timedelta
from threading import Barrier, Thread

import pytest
from django.db import IntegrityError, connections, transaction

from billing.pricing.book import ModelPrices
from billing.pricing.catalog_prices import publish_catalog_prices, read_catalog_prices
from billing.pricing.models import Price, PriceBookVersion
from billing.pricing.publish import create_draft, publish
from billing.pricing.queries import prices_of, published_version
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
CHEAP = {"tiny-lm": ModelPrices(200_000, 600_000, 0)}
DEAR = {"tiny-lm": ModelPrices(300_000, 600_000, 0)}
BATCHED = {"tiny-lm": ModelPrices(200_000, 600_000, 0, 100_000, 300_000, 0)}

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def noon():
    """The clock stands still, so that instants can be compared."""
    with clock.frozen(NOW):
        yield


def draft(prices, book="standard"):
    return create_draft(book=book, currency="USD", prices=prices)


def test_the_first_version_applies_from_the_beginning_and_a_draft_never():
    version = draft(CHEAP)
    assert published_version(NOW) is None
    assert prices_of(version.id) is None
    publish(version.id)
    for instant in (datetime(1999, 1, 1, tzinfo=UTC), NOW, NOW + timedelta(days=999)):
        found = published_version(instant)
        assert found is not None
        assert (found.version_id, found.currency, dict(found.prices)) == (version.id, "USD", CHEAP)


def test_a_successor_applies_from_its_instant_on_and_its_predecessor_until_then():
    old, new = draft(CHEAP), draft(DEAR)
    publish(old.id)
    at = NOW + timedelta(days=7)
    published = publish(new.id, effective_at=at)
    assert (published.number, published.effective_at) == (2, at)
    before, after = published_version(at - timedelta(microseconds=1)), published_version(at)
    assert before is not None
    assert after is not None
    assert (before.version_id, after.version_id) == (old.id, new.id)
    superseded = prices_of(old.id)
    assert superseded is not None
    assert dict(superseded.prices) == CHEAP


def test_a_new_version_cannot_change_which_prices_applied():
    publish(draft(CHEAP).id)
    with pytest.raises(CallerError, match="Choose a later instant") as refused:
        publish(draft(DEAR).id, effective_at=NOW - timedelta(seconds=1))
    assert refused.value.code == "effective_too_early"


def test_publishing_twice_is_refused():
    version = draft(CHEAP)
    publish(version.id)
    with pytest.raises(CallerError, match="is published"):
        publish(version.id)


@pytest.mark.parametrize(
    ("prices", "currency", "code"),
    [
        ({}, "USD", "prices_empty"),
        ({"a": ModelPrices(-1, 0, 0)}, "USD", "price_negative"),
        ({"a": ModelPrices(1, 1, 1, 0, 0, -1)}, "USD", "price_negative"),
        ({"a": ModelPrices(1, 1, 1, 0, 0)}, "USD", "batch_prices_incomplete"),
        (CHEAP, "XXX", "currency_unknown"),
        (CHEAP, "EUR", "currency_differs"),
    ],
)
def test_a_draft_that_makes_no_sense_is_refused(prices, currency, code):
    draft(CHEAP)
    with pytest.raises(CallerError) as refused:
        create_draft(book="standard", currency=currency, prices=prices)
    assert refused.value.code == code


@pytest.mark.parametrize("status", ["published", "superseded"])
def test_postgresql_refuses_to_touch_the_prices_of_a_version_that_was_published(status):
    old = draft(CHEAP)
    publish(old.id)
    if status == "superseded":
        publish(draft(DEAR).id)
    row = Price.objects.filter(version=old).first()
    assert row is not None
    attempts = [
        lambda: Price.objects.filter(id=row.id).update(unit_price_pico=1),
        lambda: Price.objects.filter(id=row.id).update(batch_unit_price_pico=1),
        lambda: Price.objects.filter(id=row.id).delete(),
        lambda: Price.objects.create(version=old, model="new", meter="requests", unit_price_pico=1),
        lambda: PriceBookVersion.objects.filter(id=old.id).update(effective_at=NOW),
        lambda: PriceBookVersion.objects.filter(id=old.id).update(number=99),
        lambda: PriceBookVersion.objects.filter(id=old.id).update(
            status="draft", effective_at=None, published_at=None, superseded_at=None
        ),
    ]
    for attempt in attempts:
        with pytest.raises(IntegrityError, match="cannot change"), transaction.atomic():
            attempt()
    with pytest.raises(IntegrityError, match="cannot change"), transaction.atomic():
        PriceBookVersion.objects.filter(id=old.id)._raw_delete("default")
    kept = prices_of(old.id)
    assert kept is not None
    assert dict(kept.prices) == CHEAP


def test_a_draft_can_still_be_edited_and_thrown_away():
    version = draft(CHEAP)
    Price.objects.filter(version=version).update(unit_price_pico=7)
    version.delete()
    assert not Price.objects.exists()


def test_batch_prices_are_published_with_the_others_and_none_means_not_offered():
    publish(draft(BATCHED).id)
    publish(draft(CHEAP).id, confirm=["gap"])
    batched, later = PriceBookVersion.objects.order_by("number")
    for version, prices in ((batched, BATCHED), (later, CHEAP)):
        found = prices_of(version.id)
        assert found is not None
        assert dict(found.prices) == prices
    assert CHEAP["tiny-lm"].of("requests", "batch") is None
    assert BATCHED["tiny-lm"].of("requests", "batch") == 0


def test_a_version_with_some_batch_prices_only_cannot_be_published_by_code_or_by_hand():
    version = draft(BATCHED)
    Price.objects.filter(version=version, meter="requests").update(batch_unit_price_pico=None)
    with pytest.raises(CallerError, match="tiny-lm has some batch prices only") as refused:
        publish(version.id)
    assert refused.value.code == "batch_prices_incomplete"
    with pytest.raises(IntegrityError, match="some batch prices only"), transaction.atomic():
        PriceBookVersion.objects.filter(id=version.id).update(
            status="published", effective_at=NOW, published_at=NOW
        )
    Price.objects.filter(version=version).update(batch_unit_price_pico=None)
    publish(version.id)


def catalog(tmp_path, input_token="0.0000002", **more):
    prices = {"input_token": input_token, "output_token": "0.0000006", "request": "0"} | more
    path = tmp_path / "catalog.json"
    path.write_text(json.dumps({"models": [{"name": "tiny-lm", "prices": prices}]}))
    return path


def test_catalog_prices_are_published_once_and_again_only_when_they_change(tmp_path):
    first = publish_catalog_prices(catalog(tmp_path))
    again = publish_catalog_prices(catalog(tmp_path))
    assert (first.is_new, again.is_new) == (True, False)
    assert first.version_id == again.version_id
    changed = publish_catalog_prices(catalog(tmp_path, "0.0000003"))
    assert changed.is_new
    now = published_version(clock.now())
    assert now is not None
    assert now.version_id == changed.version_id
    assert dict(now.prices) == DEAR


def test_a_batch_multiplier_is_exact_and_rounded_once_half_away_from_zero(tmp_path):
    prices = read_catalog_prices(
        catalog(tmp_path, "0.000000000003", request="0.000000000001", batch_multiplier="0.5")
    )
    # Half of 3 pico is 2, half of 1 is 1.
    assert prices == {"tiny-lm": ModelPrices(3, 600_000, 1, 2, 300_000, 1)}
    third = read_catalog_prices(catalog(tmp_path, "1234567.1", batch_multiplier="0.333333333333"))
    assert third["tiny-lm"].batch_input_token_pico == 411_522_366_666_255_144
    assert read_catalog_prices(catalog(tmp_path))["tiny-lm"].batch_request_pico is None


def test_a_changed_batch_multiplier_is_a_new_version(tmp_path):
    publish_catalog_prices(catalog(tmp_path))
    offered = publish_catalog_prices(catalog(tmp_path, batch_multiplier="0.5"))
    again = publish_catalog_prices(catalog(tmp_path, batch_multiplier="0.50"))
    assert (offered.is_new, again.is_new) == (True, False)


@pytest.mark.parametrize("multiplier", ["0", "-0.5", "1.000000000001", "nan", "half", "1e-13", 0.5])
def test_a_batch_multiplier_outside_its_range_is_refused(tmp_path, multiplier):
    with pytest.raises(CallerError) as refused:
        read_catalog_prices(catalog(tmp_path, batch_multiplier=multiplier))
    assert refused.value.code == "catalog_prices_invalid"


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "{}",
        '[{"name": "a"}]',
        '[{"name": "a", "prices": {"input_token": "0", "output_token": "0"}}]',
        '[{"name": "a", "prices": {"input_token": 0.1, "output_token": "0", "request": "0"}}]',
        '[{"name": "a", "prices": {"input_token": "x", "output_token": "0", "request": "0"}}]',
        '[{"name": "a", "prices": {"input_token": "1e-13", "output_token": "0", "request": "0"}}]',
    ],
)
def test_a_catalog_with_a_missing_or_inexact_price_is_refused(tmp_path, text):
    path = tmp_path / "catalog.json"
    path.write_text(text)
    with pytest.raises(CallerError) as refused:
        publish_catalog_prices(path)
    assert refused.value.code == "catalog_prices_invalid"
    assert published_version(NOW) is None


@pytest.mark.django_db(transaction=True)
def test_two_stacks_starting_at_once_publish_one_version(tmp_path):
    path, barrier, found = catalog(tmp_path), Barrier(2), []

    def start():
        barrier.wait()
        found.append(publish_catalog_prices(path))
        connections.close_all()

    threads = [Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {each.version_id for each in found} == {found[0].version_id}
    assert sorted(each.is_new for each in found) == [False, True]
    assert PriceBookVersion.objects.count() == 1
