"""Which text PostgreSQL can keep: JSON may carry what UTF-8 and a text column cannot."""


def is_storable(text: str) -> bool:
    """False for a NUL character or half of a surrogate pair."""
    if "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
