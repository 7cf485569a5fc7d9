"""One object as it is stored, by its id: where a person looks who was given an id."""

import json
from html import escape

from starlette.requests import Request
from starlette.responses import Response

from stripe_sandbox.page_frame import call_of, framed, moment, nothing_here, sandbox_of, stranger
from stripe_sandbox.render import public
from stripe_sandbox.store import Document, Store


async def show(request: Request) -> Response:
    """What Stripe would answer of it, and since when it is there."""

    def read(store: Store) -> Document | None:
        row = store.connection.execute(
            "SELECT kind FROM object WHERE id = ? AND NOT deleted", (request.path_params["id"],)
        ).fetchone()
        found = store.find(row[0], request.path_params["id"]) if row else None
        return public(call_of(request, store), found) if found is not None else None

    turned_away = stranger(request)
    if turned_away is not None:
        return turned_away
    found = await sandbox_of(request).ledger.run(read)
    if found is None:
        return nothing_here()
    kind = str(found["object"]).replace("_", " ").replace(".", " ")
    return framed(
        found["id"],
        f"<h1><a href='/'>Sandbox</a></h1><p class=amount>{escape(kind.capitalize())}</p>"
        f"<p class=quiet>{moment(found['created'])} UTC · {escape(found['id'])}</p>"
        f"<pre>{escape(json.dumps(found, indent=2))}</pre>",
    )
