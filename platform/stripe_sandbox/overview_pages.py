"""What this process holds: a front page at a glance, and the events with their deliveries.

An event can be sent again from its page. Readable by anyone on this machine, as the data file's
owner decides who that is by starting the process.
"""

import json
from dataclasses import dataclass
from html import escape

from starlette.requests import Request
from starlette.responses import Response

from stripe_sandbox import API_VERSION, clock, events, settings, webhooks
from stripe_sandbox.page_frame import (
    facts,
    framed,
    moment,
    money,
    nothing_here,
    sandbox_of,
    sent_to,
    stranger,
)
from stripe_sandbox.store import Document, Store

RECENT_ROWS = 20
EVENT_ROWS = 50
MAX_DELIVERIES = 100
SHOWN_KINDS = (
    *("customer", "invoice", "credit_note", "charge", "refund", "dispute"),
    *("checkout.session", "event", "webhook_endpoint"),
)


@dataclass(frozen=True, slots=True)
class _Glance:
    invoices: list[Document]
    events: list[Document]
    counts: dict[str, int]
    deliveries: dict[str, int]
    changed: dict[str, object]


@dataclass(frozen=True, slots=True)
class _Delivery:
    url: str
    state: str
    attempts: int
    next_at_ms: int
    last_answer: str | None


async def home(request: Request) -> Response:
    """State at a glance."""

    def read(store: Store) -> _Glance:
        counted = store.connection.execute(
            "SELECT kind, count(*) FROM object WHERE NOT deleted GROUP BY kind"
        )
        kept = settings.read_all(store)
        return _Glance(
            store.select("invoice", limit=RECENT_ROWS),
            store.select("event", limit=RECENT_ROWS),
            dict(counted.fetchall()),
            webhooks.counted(store),
            {name: value for name, value in kept.items() if value != settings.DEFAULTS[name]},
        )

    turned_away = stranger(request)
    if turned_away is not None:
        return turned_away
    sandbox = sandbox_of(request)
    glance = await sandbox.ledger.run(read)
    rules = sandbox.faults.rules()
    said = [
        ("API version", API_VERSION),
        ("Its time", f"{moment(clock.now_s())} UTC"),
        ("Webhooks", ", ".join(f"{count} {state}" for state, count in glance.deliveries.items())),
        ("Changed", ", ".join(f"{name} {value}" for name, value in glance.changed.items())),
        ("Faults", ", ".join(f"{rule.kind} at {rule.path}" for rule in rules)),
    ]
    tiles = "".join(
        f"<li><b>{glance.counts.get(kind, 0)}</b>{kind.replace('_', ' ').replace('.', ' ')}s"
        for kind in SHOWN_KINDS
    )
    return framed(
        "Stripe sandbox",
        "<h1>Stripe sandbox</h1><p class=quiet>A local stand-in for Stripe: test cards, real "
        f"state, signed webhooks.</p>{facts(said)}<ul class=tiles>{tiles}</ul>"
        f"{_invoices(glance.invoices)}{_events(glance.events, 'Latest events')}"
        "<p class=back><a href='/events'>All events and deliveries</a></p>",
    )


async def list_events(request: Request) -> Response:
    """Events, newest first, a page at a time."""
    before = request.query_params.get("before", "")

    def read(store: Store) -> list[Document]:
        seq = store.seq_of("event", before)
        where = [] if seq is None else [("seq < ?", seq)]
        return store.select("event", where, limit=EVENT_ROWS)

    turned_away = stranger(request)
    if turned_away is not None:
        return turned_away
    found = await sandbox_of(request).ledger.run(read)
    older = ""
    if len(found) == EVENT_ROWS:
        older = f"<p class=back><a href='/events?before={found[-1]['id']}'>Older</a></p>"
    home_link = "<h1><a href='/'>Stripe sandbox</a></h1>"
    return framed("Events", f"{home_link}{_events(found, 'Events')}{older}")


async def show_event(request: Request) -> Response:
    """One event: where it went, and what it says."""

    def read(store: Store) -> tuple[Document, list[_Delivery]] | None:
        event = store.find("event", request.path_params["id"])
        return None if event is None else (event, _deliveries(store, event))

    turned_away = stranger(request)
    if turned_away is not None:
        return turned_away
    found = await sandbox_of(request).ledger.run(read)
    if found is None:
        return nothing_here()
    event, deliveries = found
    rows = "".join(
        f"<tr><td>{escape(each.url)}<small>{escape(each.last_answer or 'not tried yet')}</small>"
        f"</td><td>{each.state}<small>{each.attempts} tries{_next(each)}</small></td></tr>"
        for each in deliveries
    )
    table = (
        f"<table><thead><tr><th>Endpoint</th><th>Delivery</th></tr></thead><tbody>{rows}</tbody>"
        "</table>"
        if rows
        else "<p class=note>No endpoint wanted this event.</p>"
    )
    return framed(
        event["type"],
        f"<h1><a href='/events'>Events</a></h1><p class=amount>{escape(event['type'])}</p>"
        f"<p class=quiet>{moment(event['created'])} UTC · {event['id']}</p>{table}"
        f"<form method=post action='/events/{event['id']}/resend'>"
        "<button>Send again</button></form>"
        f"<h2>Body</h2><pre>{escape(json.dumps(event, indent=2))}</pre>",
    )


async def resend_event(request: Request) -> Response:
    """Send it again to every endpoint that wants it, now."""
    event_id = request.path_params["id"]

    def write(store: Store) -> bool:
        with store.transaction():
            event = store.find("event", event_id)
            if event is not None:
                events.address(store, event, again=True)
            return event is not None

    turned_away = stranger(request)
    if turned_away is not None:
        return turned_away
    if not await sandbox_of(request).ledger.run(write):
        return nothing_here()
    sandbox_of(request).background.wake()
    return sent_to(f"/events/{event_id}")


def _deliveries(store: Store, event: Document) -> list[_Delivery]:
    rows = store.connection.execute(
        "SELECT coalesce(json_extract(body, '$.url'), endpoint), state, attempts, next_at_ms,"
        " last_answer FROM delivery LEFT JOIN object ON object.id = endpoint"
        " WHERE event = ? ORDER BY delivery.id LIMIT ?",
        (event["id"], MAX_DELIVERIES),
    )
    return [_Delivery(*row) for row in rows.fetchall()]


def _next(delivery: _Delivery) -> str:
    if delivery.state != "pending":
        return ""
    return f", next {moment(delivery.next_at_ms // 1000)}"


def _events(found: list[Document], title: str) -> str:
    rows = "".join(
        f"<tr><td><a href='/events/{event['id']}'>{escape(event['type'])}</a>"
        f"<small>{escape(str(event['data']['object'].get('id')))}</small></td>"
        f"<td><small>{moment(event['created'])}</small></td></tr>"
        for event in found
    )
    if not rows:
        return "<p class=note>Nothing has happened yet.</p>"
    head = f"<table><thead><tr><th>{title}</th><th>When, UTC</th></tr></thead>"
    return f"{head}<tbody>{rows}</tbody></table>"


def _invoices(invoices: list[Document]) -> str:
    rows = "".join(
        f"<tr><td>{_linked(invoice)}<small>{escape(invoice['customer_name'] or '')}</small></td>"
        f"<td>{invoice['status']}</td>"
        f"<td>{money(invoice['total'], invoice['currency'])}</td></tr>"
        for invoice in invoices
    )
    if not rows:
        return "<p class=note>No invoice yet.</p>"
    return (
        "<table><thead><tr><th>Latest invoices</th><th>Status</th><th>Total</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )


def _linked(invoice: Document) -> str:
    token = invoice["_page_token"]
    if token is None:
        return escape(invoice["id"])
    return f"<a href='/i/acct_sandbox/{token}'>{escape(invoice['number'])}</a>"
