"""OpenAI's way of giving texts: a string, several, token ids, or several arrays of them."""

from meterplane.contracts.policy import ModelPolicy
from meterplane.kernel.errors import CallerError

# msgspec takes one kind of list in a union; that a list is of one kind is checked below.
TokenInput = str | list[str | int | list[int]]

TOKEN_ID_MAX = 2**31 - 1
# Of one request, all its prompts together: the longest context that is common, 128 k. At 0.25 us
# each they are read and checked in 35 ms, and nothing was admitted yet.
TOKEN_IDS_MAX = 128 * 1024
VALUES_MAX = TOKEN_IDS_MAX + 8192  # and what is beside them: 2,048 arrays of ids, parameters


def pieces_of(given: TokenInput, field: str, count_max: int) -> list[str | list[int]]:
    """The texts, or their tokens, in order. Raises `CallerError` 400 naming `field`."""
    if isinstance(given, str):
        return _checked([given], field, count_max)
    _check_ids(given, field)
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


def _check_ids(given: list[str | int | list[int]], field: str) -> None:
    ids = sum(len(each) if isinstance(each, list) else 1 for each in given)
    if ids > TOKEN_IDS_MAX:
        raise CallerError(
            "invalid_value",
            f"{field} may hold at most {TOKEN_IDS_MAX:,} token ids; send several requests.",
            field=field,
        )


def check_ids_fit(pieces: list[str | list[int]], model: ModelPolicy, field: str) -> None:
    """Refuse an array of ids that is longer than its model's context, before it is looked into."""
    tokens_max = model.context_tokens_max
    for piece in pieces:
        if tokens_max and isinstance(piece, list) and len(piece) > tokens_max:
            raise CallerError(
                "context_length_exceeded",
                f"This model's maximum context length is {tokens_max} tokens. However, your {field}"
                f" has {len(piece)} tokens. Please reduce the length of the {field}.",
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
