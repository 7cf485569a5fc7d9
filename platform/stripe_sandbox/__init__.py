"""A small, stateful Stripe for one machine: real HTTP, real state, test cards, signed webhooks.

Start it, point any Stripe SDK at it, and build against it without a network or an account:

    python -m stripe_sandbox --data stripe.sqlite3 --port 8703

    import stripe
    bases = dict.fromkeys(("api", "files", "connect", "meter_events"), "http://127.0.0.1:8703")
    client = stripe.StripeClient("sk_test_anything", base_addresses=bases)

It guarantees Stripe's shapes and state moves for the calls it lists (`routes`), at one API
version, and refuses everything else aloud: an unknown parameter is `parameter_unknown`, an unknown
path is 404, and both leave a line in the log that begins with `gap:`. It never moves money: it
binds loopback only and turns live keys away.

For people: `/` shows the state at a glance, `/events` every event with its deliveries; invoices,
Checkout, the billing portal and banks' questions have pages that can be clicked through with
published test cards. For tests: `/_sandbox` moves the clock, breaks connections, answers errors,
doubles, loses, holds and reorders webhooks, and decides disputes (`control`, `faults`, `settings`).

What it does not know: subscriptions, meters, coupons, Connect, other payment methods than cards,
fees and payouts; how Stripe rounds fractional prices, so those are refused on invoice lines. Rates
of automatic tax are a small table of examples. It imports nothing of the product beside it.
"""

API_VERSION = "2026-10-28.endive"
"""The one version spoken here. A request naming another is refused rather than half understood."""
