"""What is wrong with how one model is reached and read. Needs no other model, and no I/O.

Guarantees of an entry without faults: every address has a host and no secret in it, a request can
always be sent to some target, and nothing a caller writes reaches a server's files or hosts.
"""

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from meterplane.catalog.chat_template import why_it_does_not_compile
from meterplane.catalog.closed_parameters import why_closed
from meterplane.catalog.entry import CatalogEntry, TargetEntry
from meterplane.catalog.fault import Fault
from meterplane.catalog.surfaces import PROMPTED_ADAPTERS
from meterplane.kernel.limits import STREAM_DURATION_S_MAX

TARGETS_MAX = 16  # stable, canary and a few regions
SERVERS_MAX = 64  # of one target; every gateway worker keeps connections to each and probes it
ADDRESS_CHARS_MAX = 255  # a host name has at most 253
WEIGHT_MAX = 1000  # the smallest share is one in 16,000
NAMES_MAX = 64  # parameters, inputs, outputs: a whole serving stays below 200 kB
CHAT_TEMPLATE_CHARS_MAX = 65_536  # published templates reach 20,000
UPSTREAM_CHARS_MAX = 200
IN_FLIGHT_MAX = 16_384  # one gateway worker has no more connections
QUEUE_MAX = 16_384
QUEUE_S_MAX = 30
PRIORITY_LEVELS_MAX = 16
PLACE_CHARS_MAX = 64  # of a region or a GPU type

_TARGET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_PLACE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9 ._:/+-]{0,62}[A-Za-z0-9])?")
_TRITON_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_OPENAI_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*(/[A-Za-z0-9][A-Za-z0-9._:-]*)*")
_VERSION = re.compile(r"[1-9][0-9]{0,17}")
_HOST_PORT = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")
_PRINTED = re.compile(r"[!-~]+")  # ASCII without spaces and control characters
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")
_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_TENSOR = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,127}")
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{1,63}")

# Sent as a bearer token to the model's servers, so never one of our own.
OWN_VARIABLES = frozenset({
    "API_KEY_PEPPER", "DATABASE_URL", "MIGRATION_DATABASE_URL", "GATEWAY_DATABASE_URL",
    "REDIS_URL", "ADMISSION_REDIS_URL", "CELERY_BROKER_URL", "DJANGO_SECRET_KEY",
    "STRIPE_API_KEY", "STRIPE_WEBHOOK_SECRET", "SMTP_URL",
})  # fmt: skip


def is_place(named: str) -> bool:
    """Whether a region or a GPU type may be called so."""
    return _PLACE.fullmatch(named) is not None


def serving_faults(entry: CatalogEntry) -> Iterator[Fault]:
    """Everything wrong with the entry's own words, in the order of its fields."""
    if problem := _upstream_problem(entry.upstream, entry.adapter):
        yield entry.fault("upstream", problem)
    for field, problem in _targets_problems(entry):
        yield entry.fault(field, problem)
    if problem := _chat_template_problem(entry):
        yield entry.fault("chat_template", problem)
    if entry.tokenizer and not (_FOLDER.fullmatch(entry.tokenizer) and len(entry.tokenizer) <= 200):
        yield entry.fault(
            "tokenizer",
            f"{entry.tokenizer!r} is not a folder below the gateway's TOKENIZERS_DIR; write it"
            " relative, without '..'",
        )
    yield from _parameter_faults(entry)
    for field in ("inputs", "outputs"):
        yield from _name_faults(entry, field, _TENSOR, "a tensor's name")
    if entry.continuous_usage and entry.adapter != "openai":
        yield entry.fault(
            "continuous_usage", "is asked of OpenAI-compatible servers only; leave it false"
        )
    if problem := _secret_problem(entry.secret_env):
        yield entry.fault("secret_env", problem)
    for field in ("first_byte_timeout_s", "idle_timeout_s", "duration_s_max"):
        # Written so that NaN, which is neither below nor above anything, is a fault too.
        if not 0 <= getattr(entry, field) <= STREAM_DURATION_S_MAX:
            yield entry.fault(
                field,
                f"is {getattr(entry, field)}; state 0 (the gateway's own) to"
                f" {STREAM_DURATION_S_MAX} seconds: a reservation is held no longer",
            )
    yield from _queue_faults(entry)


def _queue_faults(entry: CatalogEntry) -> Iterator[Fault]:
    for field, most, what in (
        ("in_flight_max", IN_FLIGHT_MAX, "0 (no bound)"),
        ("queue_max", QUEUE_MAX, "0 (nobody waits)"),
        ("queue_s_max", QUEUE_S_MAX, "0 (nobody waits)"),
        ("priority_levels", PRIORITY_LEVELS_MAX, "0 (none)"),
    ):
        # Written so that NaN, which is neither below nor above anything, is a fault too.
        if not 0 <= getattr(entry, field) <= most:
            yield entry.fault(field, f"is {getattr(entry, field)}; state {what} to {most:,}")
    if entry.priority_levels and entry.adapter not in ("tensor", "embedding"):
        yield entry.fault(
            "priority_levels",
            f"are told to Triton with tensors, which the {entry.adapter} adapter does not send;"
            " leave it 0",
        )


def _upstream_problem(upstream: str, adapter: str) -> str | None:
    names, also = (_OPENAI_NAME, ", '/' and ':'") if adapter == "openai" else (_TRITON_NAME, "")
    if names.fullmatch(upstream) and len(upstream) <= UPSTREAM_CHARS_MAX:
        return None
    return (
        f"{upstream!r} is no name of a model on such a server; use letters, digits, '.', '_', '-'"
        f"{also}, starting with a letter or digit, {UPSTREAM_CHARS_MAX} characters at most"
    )


def _targets_problems(entry: CatalogEntry) -> Iterator[tuple[str, str]]:
    if len(entry.targets) > TARGETS_MAX:
        yield "targets", f"are {len(entry.targets)}; {TARGETS_MAX} at most"
        return
    names = [target.name for target in entry.targets]
    for number, target in enumerate(entry.targets):
        if not _TARGET_NAME.fullmatch(target.name):
            yield (
                f"targets[{number}].name",
                f"{target.name!r} is shown in usage; use up to 40 letters, digits, '.', '_', '-'",
            )
        elif target.name in names[:number]:
            yield (
                f"targets[{number}].name",
                f"{target.name!r} is taken by another target of the model; name each differently",
            )
        for field, problem in _target_problems(target, entry):
            yield f"targets[{number}].{field}", problem
    if entry.targets and not any(target.weight > 0 for target in entry.targets):
        yield "targets", "all have weight 0, so none would get a request; give one a weight"


def _target_problems(target: TargetEntry, entry: CatalogEntry) -> Iterator[tuple[str, str]]:
    if target.upstream and (problem := _upstream_problem(target.upstream, entry.adapter)):
        yield "upstream", problem
    if not 0 <= target.weight <= WEIGHT_MAX:
        yield "weight", f"is {target.weight}; state 0 (no requests) to {WEIGHT_MAX}"
    for field, addresses in (("servers", target.servers), ("grpc_servers", target.grpc_servers)):
        if len(addresses) > SERVERS_MAX:
            yield field, f"are {len(addresses)}; {SERVERS_MAX} at most"
        for address in addresses[:SERVERS_MAX]:
            problem = _url_problem(address) if field == "servers" else _grpc_problem(address)
            if problem:
                yield field, problem
            elif addresses.count(address) > 1:
                yield field, f"name {address!r} twice; name it once"
                break
    for field, named in (("region", target.region), ("gpu_type", target.gpu_type)):
        if named and not is_place(named):
            yield (
                field,
                f"{named[: 2 * PLACE_CHARS_MAX]!r} is shown in usage and matched by prices; use up"
                f" to {PLACE_CHARS_MAX} letters, digits, blanks, '.', '_', ':', '/', '+', '-'",
            )
    if entry.adapter == "openai" and target.grpc_servers:
        yield "grpc_servers", "are not spoken to by the openai adapter; leave them out"
    if not target.version:
        return
    if entry.adapter == "openai":
        yield "version", "means nothing to an OpenAI-compatible server; name it in upstream"
    elif not _VERSION.fullmatch(target.version):
        yield (
            "version",
            f"{target.version!r} is no version of a Triton model; write its number as digits, as"
            ' "3", or leave it empty for the server\'s own choice',
        )


def _url_problem(address: str) -> str | None:
    shown = f"{address[:ADDRESS_CHARS_MAX]!r}"
    if not _PRINTED.fullmatch(address) or len(address) > ADDRESS_CHARS_MAX:
        return f"{shown} is longer than {ADDRESS_CHARS_MAX} characters or holds blanks"
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as wrong:
        return f"{shown} is not an address: {wrong}"
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        return f"{shown} needs http:// or https:// and a host, as in http://triton-a:8000"
    if parts.username is not None or parts.password is not None:
        return (
            f"for {parts.hostname} hold a user name or password, which would be shown and stored;"
            " name a variable of the gateway in secret_env instead"
        )
    if parts.query or parts.fragment or "?" in address or "#" in address:
        return f"{shown} has a query or fragment; state the base address alone"
    return None


def _grpc_problem(address: str) -> str | None:
    found = _HOST_PORT.fullmatch(address)
    if found and len(address) <= ADDRESS_CHARS_MAX and 0 < int(found[2]) <= 65_535:
        return None
    return f"{address[:ADDRESS_CHARS_MAX]!r} is not host:port, as in triton-a:8001"


def _chat_template_problem(entry: CatalogEntry) -> str | None:
    if not entry.chat_template:
        return None
    if len(entry.chat_template) > CHAT_TEMPLATE_CHARS_MAX or "\0" in entry.chat_template:
        return f"is longer than {CHAT_TEMPLATE_CHARS_MAX:,} characters or holds a NUL; shorten it"
    if problem := why_it_does_not_compile(entry.chat_template):
        return f"does not compile: {problem}"
    if entry.adapter not in PROMPTED_ADAPTERS:
        return (
            f"is never rendered for the {entry.adapter} adapter, whose server makes the prompt"
            " itself; leave it empty"
        )
    return None


def _parameter_faults(entry: CatalogEntry) -> Iterator[Fault]:
    yield from _name_faults(entry, "parameters", _PARAMETER, "a request field's name")
    for name in entry.parameters:
        if reason := why_closed(name):
            yield entry.fault("parameters", f"may never hold {name!r}: {reason}; take it out")


def _name_faults(
    entry: CatalogEntry, field: str, form: re.Pattern[str], what: str
) -> Iterator[Fault]:
    names: list[str] = getattr(entry, field)
    if len(names) > NAMES_MAX:
        yield entry.fault(field, f"are {len(names)}; {NAMES_MAX} at most")
        return
    for number, name in enumerate(names):
        if not form.fullmatch(name):
            yield entry.fault(field, f"hold {name[:200]!r}, which is not {what}; correct it")
        elif name in names[:number]:
            yield entry.fault(field, f"hold {name!r} twice; name it once")


def _secret_problem(name: str) -> str | None:
    if not name:
        return None
    if not _VARIABLE.fullmatch(name):
        return (  # not repeated here: it may be the key itself
            "is not the name of an environment variable (A-Z, 0-9, '_'); put the key into the"
            " gateway's environment, and only the variable's name here"
        )
    if name in OWN_VARIABLES:
        return f"{name} is a secret of Meterplane itself; the model's servers would receive it"
    return None
