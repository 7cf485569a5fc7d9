"""Random months with interim invoices, against a reckoning of fractions that knows none."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction

import pytest

from billing.credits.models import CreditMovement
from billing.credits.restore import still_drawn
from billing.invoicing.advance import News, advance
from billing.invoicing.agree import agree
from billing.invoicing.close import close_period
from billing.invoicing.interim import make_interim
from billing.invoicing.invoice_csv import lines_csv
from billing.invoicing.models import Invoice, InvoiceLine, InvoiceTax
from billing.invoicing.queries import upcoming_invoice
from billing.invoicing.taxation import assign_rates, create_rate
from billing.invoicing.thresholds import set_threshold
from billing.ledger.audit import audit
from meterplane.kernel import clock
from tenants.scoping import tenant_scope
from tests.billing.credits.rig import give
from tests.billing.world import ingest, used, utc
from tests.scenarios.months.reckoning import graduated, rounded, volume
from tests.scenarios.months.story import published

pytestmark = pytest.mark.django_db
MONTHS = 20  # each is a hundred acts

PRICES = """
    input_tokens   all  0.0000173
    output_tokens  all  graduated 400000 at 0.0000411 + 1.5, on at 0.0000077
    requests       all  volume 60 at 0.31, 200 at 0.17, on at 0.19 + 2
"""
OUTPUT = [(400_000, "0.0000411", "1.5"), (None, "0.0000077", "0")]
REQUESTS = [(60, "0.31", "0"), (200, "0.17", "0"), (None, "0.19", "2")]


@dataclass
class Month:
    """What is used of a month, and what is agreed on."""

    chance: random.Random
    tokens_in: dict[str, int] = field(default_factory=dict)
    tokens_out: int = 0
    requests: int = 0
    discount: Fraction = Fraction(0)
    least: int | None = None
    most: int | None = None

    def use(self) -> dict[str, int | str]:
        model = self.chance.choice(["tiny-lm", "minilm"])
        told = {
            "tokens_in": self.chance.randrange(900_000),
            "tokens_out": self.chance.randrange(200_000),
            "requests": self.chance.randrange(1, 60),
        }
        self.tokens_in[model] = self.tokens_in.get(model, 0) + told["tokens_in"]
        self.tokens_out += told["tokens_out"]
        self.requests += told["requests"]
        return {"model": model, **told}

    def owed(self) -> int:
        """Cents, in integers and fractions alone."""
        spent = sum(rounded(each * Fraction("0.0000173") * 100) for each in self.tokens_in.values())
        spent += rounded(graduated(OUTPUT, self.tokens_out) * 100) if self.tokens_out else 0
        spent += rounded(volume(REQUESTS, self.requests) * 100) if self.requests else 0
        spent -= rounded(spent * self.discount / 100)
        if self.most is not None:
            spent = min(spent, self.most)
        return spent if self.least is None else max(spent, self.least)


def terms(month: Month) -> dict[str, str]:
    month.discount = Fraction(month.chance.choice(["0", "7.25", "12.5"]))
    agreed = {"starts_at": "2026-11-01T00:00:00Z"}
    if month.discount:
        agreed["discount_percent"] = f"{float(month.discount)}"
    if month.chance.random() < 0.4:
        month.least = month.chance.randrange(50_00, 150_00)
        agreed["minimum_spend"] = f"{month.least // 100}.{month.least % 100:02}"
    if month.chance.random() < 0.4:
        month.most = month.chance.randrange(150_00, 250_00)
        agreed["maximum_spend"] = f"{month.most // 100}.{month.most % 100:02}"
    return agreed


def instants(chance: random.Random) -> Iterator[datetime]:
    at = utc(11, 1)
    while (at := at + timedelta(minutes=chance.randrange(1, 3_000))) < utc(12, 1):
        yield at


def live_through(tenant, month: Month, version) -> tuple[int, int, int]:
    """A month of acts in any order: how many interim invoices, what credit paid, the tax in %."""
    chance = month.chance
    percentage, made = 0, 0
    with clock.frozen(utc(11, 1)):
        with tenant_scope(tenant.id):
            set_threshold(str(chance.choice([1, 5, 20, 60])), by="test")
        if chance.random() < 0.7:
            agree(tenant_id=tenant.id, body=terms(month), by="sales")
    for at in instants(chance):
        with clock.frozen(at):
            act = chance.random()
            if act < 0.55:
                ingest(used(tenant, version, at - timedelta(milliseconds=1), **month.use()))
            elif act < 0.85:
                made += make_interim(tenant.id) is not None
            elif act < 0.92:
                percentage = chance.choice([7, 19, 21])
                mode = chance.choice(["exclusive", "inclusive"])
                rate = create_rate(name="VAT", percentage=str(percentage), mode=mode)
                percentage = percentage if mode == "exclusive" else -percentage
                with tenant_scope(tenant.id):
                    assign_rates([rate.id])
            else:
                models = chance.choice([(), ("minilm",)])
                give(tenant, chance.randrange(100, 3_000), effective_at=at, models_only=models)
    with clock.frozen(utc(12, 2)):
        with tenant_scope(tenant.id):
            upcoming = upcoming_invoice(utc(12, 1))
        check_what_was_upcoming(tenant, upcoming, close_period(tenant.id, utc(12, 1)))
    with tenant_scope(tenant.id):
        moved = list(CreditMovement.objects.values_list("kind", "amount_minor"))
    drawn = sum(amount if kind == "drawn" else -amount for kind, amount in moved)
    return made, drawn, percentage


def check_what_was_upcoming(tenant, upcoming, made: Invoice | None) -> None:
    """It is what was made then: interim invoices, credit and taxes are no exception."""
    if made is None:
        assert upcoming.total_minor == 0
        return
    with tenant_scope(tenant.id):
        lines = list(made.lines.order_by("position"))
        taxes = list(InvoiceTax.objects.filter(invoice=made).order_by("position"))
    assert [(line.kind, line.meter, line.amount_minor) for line in upcoming.lines] == [
        (line.kind, line.meter, line.amount_minor) for line in lines
    ]
    assert [(each.name, each.taxable_minor, each.amount_minor) for each in upcoming.taxes] == [
        (each.name, each.taxable_minor, each.amount_minor) for each in taxes
    ]
    assert upcoming.total_minor == made.total_minor


def check_a_month(tenant, seed: int) -> int:
    """All invoices of a month add up to what one would have been; how many interim ones."""
    month = Month(random.Random(seed))
    version = published(PRICES)
    made, drawn, percentage = live_through(tenant, month, version)
    with tenant_scope(tenant.id):
        rows = list(Invoice.objects.order_by("period_end"))
        taxes = sum(InvoiceTax.objects.values_list("amount_minor", flat=True))
        usage = sum(
            InvoiceLine.objects.exclude(kind="credit").values_list("amount_minor", flat=True)
        )
    assert usage == month.owed()
    left = month.owed() - drawn
    base = 100 if percentage >= 0 else 100 - percentage
    assert taxes == rounded(Fraction(left * abs(percentage), base))
    on_top = taxes if percentage > 0 else 0
    assert sum(row.total_minor for row in rows) == left + on_top
    assert sum(row.kind == "interim" for row in rows) == made
    with tenant_scope(tenant.id):
        drawn_by = still_drawn([row.id for row in rows])
    if rows and rows[-1].total_minor < 0:  # what credit paid has come back as credit, then
        scopes = [grant.models_only for parts in drawn_by.values() for grant, _ in parts]
        assert [] not in scopes
    for row in rows:
        with tenant_scope(tenant.id):
            lines_csv(row.id)  # it refuses what does not add up
    with tenant_scope(tenant.id):
        for row in rows:
            advance(row.id, News("open", utc(12, 3)))
    assert [(each.check, each.findings) for each in audit() if each.findings] == []
    return made


def test_invoices_of_a_month_add_up_to_what_one_would_have_been(onboard):
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    with clock.frozen(utc(11, 1)):
        tenant = onboard("acme")
    check_a_month(tenant, seed)


@pytest.mark.long
def test_many_months_add_up(onboard):
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    made = 0
    for number in range(MONTHS):
        with clock.frozen(utc(11, 1)):
            tenant = onboard(f"acme-{number}")
        made += check_a_month(tenant, seed + number)
        print(f"{number + 1} months, {made} interim invoices")
    assert made > MONTHS
