"""Prove the ledger: entry by entry, balance by balance, and against those who posted.

    sums        each entry has the legs it says, at least two, and they add up to zero
    contents    each entry's legs are those that were posted (its hash is computed again)
    balances    every balance is the sum and the number of its account's legs
    trial       all legs of a currency add up to zero, and so do all balances
    <source>    what a source expects is there with the right amounts, and nothing more of its kinds
    kinds       every entry is of a kind that some source vouches for

Guarantees: reads one instant of the database, so that what is posted meanwhile cannot look wrong,
and writes nothing. Each finding names what is wrong by id. `post_missing` is a separate act: it
posts what a source expects and the ledger lacks, such as invoices from before there was a ledger;
what differs or is too much it leaves to a person.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from django.db import connection, transaction

from billing.ledger.entry import Leg, content_hash
from billing.ledger.post import post_entry
from billing.ledger.queries import EntryView, entries_by_source
from billing.ledger.sources import Expected, Page, Source, registered
from tenants.scoping import system_scope, tenant_scope

FINDINGS_MAX = 1_000  # of each check; more of them would not be read


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, and whose. `tenant_id` is None of what belongs to nobody alone."""

    tenant_id: UUID | None
    subject: str
    what: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check looked at and what it found; the first `FINDINGS_MAX` of it."""

    check: str
    proves: str
    examined: int
    findings: tuple[Finding, ...]

    @property
    def holds(self) -> bool:
        return not self.findings


def audit(tenant_id: UUID | None = None) -> list[Verdict]:
    """Every check, at one instant; of one organisation through its own door, or of all."""
    with _one_instant(tenant_id, "the ledger is audited"):
        verdicts = [_read(check) for check in _CHECKS]
        verdicts += [_of_source(source) for source in registered()]
        verdicts.append(_kinds())
    return verdicts


def post_missing() -> int:
    """Post what is expected and not there; how many entries that was.

    Idempotent and safe beside everything else: each is posted in a transaction of its own, by the
    function that would have posted it in time.
    """
    posted = 0
    for source in registered():
        for page in _each_in_a_door(source, "what the ledger lacks is looked for"):
            with system_scope("what the ledger lacks is looked for"):
                missing = _missing(source, page)
            for expected in missing:
                with tenant_scope(expected.tenant_id):
                    post_entry(expected.entry)
                posted += 1
    return posted


@contextmanager
def _one_instant(tenant_id: UUID | None, reason: str) -> Iterator[None]:
    """Inside another transaction, which has begun to read, it is as exact as that one is."""
    is_first = not connection.in_atomic_block
    with transaction.atomic():
        if is_first:  # before the door, which asks PostgreSQL something
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                cursor.execute("SET LOCAL statement_timeout = '15min'")  # of all there ever was
        with tenant_scope(tenant_id) if tenant_id is not None else system_scope(reason):
            yield


@dataclass(frozen=True, slots=True)
class _Check:
    """`count` reads how many were examined; `wrong` (tenant, subject, what), so many at most."""

    name: str
    proves: str
    count: str
    wrong: str


_CHECKS = (
    _Check(
        "sums",
        "every entry has its legs, and they add up to zero",
        "SELECT count(*) FROM ledger_entry",
        """
        SELECT coalesce(e.tenant_id, l.tenant_id), 'entry ' || coalesce(e.id, l.entry_id),
               CASE WHEN e.id IS NULL THEN 'its legs are there, the entry is not'
                    WHEN coalesce(l.legs, 0) <> e.leg_count
                      THEN format('has %%s legs, it says %%s', coalesce(l.legs, 0), e.leg_count)
                    WHEN l.foreign_legs > 0
                      THEN format('%%s legs are in another currency or another tenant''s',
                                  l.foreign_legs)
                    ELSE format('debits and credits are %%s apart', l.off) END
          FROM ledger_entry e
          FULL JOIN (
            SELECT l.entry_id, min(l.tenant_id::text)::uuid AS tenant_id, count(*) AS legs,
                   sum(l.amount_minor) AS off,
                   count(*) FILTER (WHERE l.currency <> e.currency OR l.tenant_id <> e.tenant_id)
                     AS foreign_legs
              FROM ledger_leg l LEFT JOIN ledger_entry e ON e.id = l.entry_id
             GROUP BY l.entry_id) l ON l.entry_id = e.id
         WHERE e.id IS NULL OR l.entry_id IS NULL OR l.legs <> e.leg_count OR l.legs < 2
            OR l.off <> 0 OR l.foreign_legs > 0
         ORDER BY 1, 2 LIMIT %s
        """,
    ),
    _Check(
        "contents",
        "every entry's legs are those that were posted",
        "SELECT count(*) FROM ledger_entry",
        # As `entry.content_hash` computes it.
        """
        SELECT e.tenant_id, 'entry ' || e.id, 'its legs are not those that were posted'
          FROM ledger_entry e
          JOIN (SELECT entry_id, string_agg(account || ' ' || amount_minor || E'\\n', ''
                         ORDER BY account COLLATE "C", amount_minor) AS moved
                  FROM ledger_leg GROUP BY entry_id) l ON l.entry_id = e.id
         WHERE encode(sha256(convert_to(e.currency || E'\\n' || l.moved, 'UTF8')), 'hex')
               <> e.content_hash
         ORDER BY 1, 2 LIMIT %s
        """,
    ),
    _Check(
        "balances",
        "every balance is the sum of its legs",
        "SELECT count(*) FROM ledger_balance",
        """
        SELECT coalesce(b.tenant_id, l.tenant_id),
               'balance of ' || coalesce(b.account, l.account)
                 || ' in ' || coalesce(b.currency, l.currency),
               format('is %%s of %%s legs; there are %%s legs, which add up to %%s',
                      coalesce(b.balance_minor::text, 'missing'), coalesce(b.leg_count, 0),
                      coalesce(l.legs, 0), coalesce(l.amount_minor, 0))
          FROM ledger_balance b
          FULL JOIN (SELECT tenant_id, currency, account, sum(amount_minor) AS amount_minor,
                            count(*) AS legs
                       FROM ledger_leg GROUP BY tenant_id, currency, account) l
            ON (l.tenant_id, l.currency, l.account) = (b.tenant_id, b.currency, b.account)
         WHERE (b.balance_minor, b.leg_count) IS DISTINCT FROM (l.amount_minor, l.legs)
         ORDER BY 1, 2 LIMIT %s
        """,
    ),
    _Check(
        "trial",
        "all debits of a currency equal all its credits",
        "SELECT count(DISTINCT currency) FROM ledger_leg",
        """
        SELECT NULL, 'all ' || what || ' in ' || currency, format('add up to %%s', off)
          FROM (SELECT 'legs' AS what, currency, sum(amount_minor) AS off
                  FROM ledger_leg GROUP BY currency
                UNION ALL
                SELECT 'balances', currency, sum(balance_minor)
                  FROM ledger_balance GROUP BY currency) sums
         WHERE off <> 0
         ORDER BY 1, 2 LIMIT %s
        """,
    ),
)


def _read(check: _Check) -> Verdict:
    with connection.cursor() as cursor:
        cursor.execute(check.count)
        examined = cursor.fetchone()[0]
        cursor.execute(check.wrong, [FINDINGS_MAX])
        findings = tuple(Finding(*row) for row in cursor.fetchall())
    return Verdict(check.name, check.proves, examined, findings)


def _pages(source: Source) -> Iterator[Page]:
    """Needs a door to be open whenever the next one is asked for."""
    after: UUID | None = None
    while True:
        page = source.page(after)
        yield page
        if page.next_after is None:
            return
        after = page.next_after


def _each_in_a_door(source: Source, reason: str) -> Iterator[Page]:
    """Between them no transaction is open."""
    pages = _pages(source)
    while True:
        with system_scope(reason):
            page = next(pages, None)
        if page is None:
            return
        yield page


def _posted(source: Source, page: Page) -> dict[tuple[UUID, str, str], EntryView]:
    found = entries_by_source(source.kinds, {each.entry.source_id for each in page.expected})
    return {
        (view.tenant_id, view.kind, view.source_id): view
        for views in found.values()
        for view in views
    }


def _key(expected: Expected) -> tuple[UUID, str, str]:
    return expected.tenant_id, expected.entry.kind, expected.entry.source_id


def _missing(source: Source, page: Page) -> list[Expected]:
    posted = _posted(source, page)
    return [each for each in page.expected if _key(each) not in posted]


def _of_source(source: Source) -> Verdict:
    examined, findings = 0, list[Finding]()
    vouched: set[UUID] = set()  # 100 bytes an entry: a million of them are 100 MB

    def found(tenant_id: UUID, subject: str, what: str) -> None:
        if len(findings) < FINDINGS_MAX:
            findings.append(Finding(tenant_id, subject, what))

    for page in _pages(source):
        for unclear in page.unclear:
            found(unclear.tenant_id, unclear.subject, unclear.why)
        posted = _posted(source, page)
        for expected in page.expected:
            examined += 1
            view = posted.get(_key(expected))
            if view is None:
                subject = f"{expected.entry.kind} of {expected.entry.source_id}"
                found(expected.tenant_id, subject, "is not in the ledger")
                continue
            vouched.add(view.id)
            if content_hash(view.currency, view.legs) != expected.entry.content_hash:
                found(view.tenant_id, f"entry {view.id}", _difference(view, expected))
    for surplus in _surplus(source.kinds, vouched):
        found(*surplus)
    proves = f"{source.each} has its entry, with the right amounts"
    return Verdict(source.name, proves, examined, tuple(findings))


def _difference(view: EntryView, expected: Expected) -> str:
    def text(currency: str, legs: Sequence[Leg]) -> str:
        return ", ".join(f"{leg.account} {leg.amount_minor}" for leg in legs) + f" {currency}"

    return (
        f"{view.kind} of {view.source_id} is {text(view.currency, view.legs)};"
        f" it should be {text(expected.entry.currency, expected.entry.legs)}"
    )


def _surplus(kinds: frozenset[str], vouched: set[UUID]) -> Iterator[tuple[UUID, str, str]]:
    """Entries of these kinds that nothing calls for: as a rule two counts say there are none."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM ledger_entry WHERE kind = ANY(%s)", [sorted(kinds)])
        if cursor.fetchone()[0] == len(vouched):
            return
        cursor.execute(
            "SELECT tenant_id, id, kind, source_id FROM ledger_entry WHERE kind = ANY(%s)"
            " ORDER BY tenant_id, id",
            [sorted(kinds)],
        )
        for tenant_id, entry_id, kind, source_id in cursor:
            if entry_id not in vouched:
                yield tenant_id, f"entry {entry_id}", f"nothing calls for {kind} of {source_id}"


def _kinds() -> Verdict:
    known = sorted(kind for source in registered() for kind in source.kinds)
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(DISTINCT kind) FROM ledger_entry")
        examined = cursor.fetchone()[0]
        cursor.execute(
            "SELECT tenant_id, 'entry ' || id, 'nobody vouches for the kind ' || kind"
            "  FROM ledger_entry WHERE kind <> ALL(%s) ORDER BY 1, 2 LIMIT %s",
            [known, FINDINGS_MAX],
        )
        findings = tuple(Finding(*row) for row in cursor.fetchall())
    proves = "every entry is of a kind that somebody vouches for"
    return Verdict("kinds", proves, examined, findings)
