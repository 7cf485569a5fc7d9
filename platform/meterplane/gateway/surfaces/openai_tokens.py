"""OpenAI's way of giving texts: a string, several, token ids, or several arrays of them."""

from meterplane.kernel.errors import CallerError

# msgspec takes one kind of list in a union; that a list is of one kind is checked below.
TokenInput = str | list[str | int | list[int]]

TOKEN_ID_MAX = 2**31 - 1


def pieces_of(given: TokenInput, field: str, count_max: int) -> list[str | list[int]]:
    """The texts, or their tokens, in order. Raises `CallerError` 400 naming `field`."""
    if isinstance(given, str):
        return _checked([given], field, count_max)
    if given and all(isinstance(each, int) for each in given):
        return _checked([[each for each in given if isinstance(each, int)]], field, count_max)
    texts = [each for each in given if isinstance(each, str)]
    arrays = [each for each in given if isinstance(each, list)]
    if texts and len(texts) == len(given):
        return _checked([*texts], field, count_max)
    if arrays and len(arrays) == len(given):
        return _checked([*arrays], field, count_max)
    raise CallerError(
        "invalid_value",
        f"{field} must be a string, strings, token ids, or arrays of token ids; not a mixture and"
        " not empty.",
        field=field,
    )


def _checked(pieces: list[str | list[int]], field: str, count_max: int) -> list[str | list[int]]:
    if len(pieces) > count_max:
        raise CallerError(
            "invalid_value", f"{field} may hold at most {count_max} entries.", field=field
        )
    for piece in pieces:
        if not piece:
            raise CallerError("invalid_value", f"An entry of {field} is empty.", field=field)
        if isinstance(piece, list) and not (min(piece) >= 0 and max(piece) <= TOKEN_ID_MAX):
            raise CallerError(
                "invalid_value", f"A token id in {field} is out of range.", field=field
            )
    return pieces
