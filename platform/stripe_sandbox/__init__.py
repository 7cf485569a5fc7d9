"""A small, stateful Stripe for one machine: real HTTP, real state, test cards, signed webhooks.

It guarantees Stripe's shapes and state moves for the calls it lists, at one API version, and
refuses everything else aloud. It knows nothing of the product that talks to it and imports none
of it. It never moves money: it binds loopback only and turns live keys away.
"""

API_VERSION = "2026-10-28.endive"
"""The one version spoken here. A request naming another is refused rather than half understood."""
