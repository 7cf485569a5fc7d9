"""What is said of collecting an invoice: a history that a person reads, oldest first.

A parked invoice may be parked again for another reason; the first one still has to be settled, so
nothing is overwritten. What is said already is not said twice: whoever looks again finds the same.
"""

NOTE_CHARS_MAX = 10_000  # hundreds of reasons; beyond that the newest count


def with_said(note: str, said: str) -> str:
    """`note` with `said` as its last lines."""
    if said in note:
        return note
    return "\n".join(text for text in (note, said) if text)[-NOTE_CHARS_MAX:]
