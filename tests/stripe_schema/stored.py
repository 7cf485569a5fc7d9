"""What a sandbox has kept, judged afterwards.

For a sandbox that a whole stack starts for itself, with nobody listening in between: its file
holds every event of the last 30 days, with its object, and every answer to a request that carried
an idempotency key. The sandbox must have ended: it holds its file alone. What was asked is not
kept; `tests.stripe_sandbox.test_parameters` shows that no call takes what Stripe's does not.
"""

import json
import sqlite3
from pathlib import Path

from stripe._object_classes import OBJECT_CLASSES

from tests.stripe_schema.exchange import installed
from tests.stripe_schema.kinds import Named


def complaints(data: Path) -> list[str]:
    """Everything in the file of a sandbox that Stripe would not have said, once each."""
    judge = installed().answers
    found: dict[str, None] = {}
    connection = sqlite3.connect(f"file:{data}?mode=ro", uri=True)
    try:
        for (body,) in connection.execute("SELECT body FROM object WHERE kind = 'event'"):
            event = {**json.loads(body), "pending_webhooks": 0}
            about = event.get("type")
            found |= dict.fromkeys(f"event {about}: {said}" for said in judge.of_event(event))
        for status, body in connection.execute("SELECT status, body FROM idempotent_result"):
            answer = json.loads(body)
            said = judge.of_error(answer) if status >= 400 else _of_object(answer)
            found |= dict.fromkeys(f"answer {answer.get('object')}: {each}" for each in said)
    finally:
        connection.close()
    return list(found)


def _of_object(answer: dict[str, object]) -> list[str]:
    of = OBJECT_CLASSES.get(str(answer.get("object")))
    if of is None:
        return ["is no object of Stripe's"]
    return installed().answers.of_kind(Named(of[0], (of[1],)), answer)
