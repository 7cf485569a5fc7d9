"""What metering accounts for of Triton's own count, as bounds; see decisions/0021.

Triton counts a request some moment after its last answer, and is looked at once a minute. What it
counted between two looks is therefore not what came in within an hour. Exact is this: a request
that ended well, and that began and ended between the looks, is in the difference; one that began
before or ended after a look may be; one that was cancelled, failed or was cut by a crash may be,
too, since Triton goes on with what it has begun. All other requests cannot. So the difference lies
between `low` and `high`, whoever is asked, unless usage was lost or somebody passed the gateway by.

How many requests to Triton one event is: one, but for a text engine's (`gateway.adapters.text`),
asked once a prompt, and with engines that make one choice at a time once for each choice. Prompts
are the event's `rows`; choices are not recorded, hence a bound there, too.

Limits: an ensemble's parts and what one model asks another inside Triton are counted by Triton and
are no events, so a model used inside another one has no upper bound that holds. What a proxy in
front repeats is computed twice and metered once. Clocks of gateways and workers may differ by
`SLACK` less Triton's own delay. An alias of one model on one server is counted with it.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from meterplane.catalog.entry import CatalogEntry
from meterplane.metering.reading import read
from meterplane.triton.metrics import MeasuredServer, as_named

# Triton's count of an answer rose 0.1 s after it was read, on an idle machine; a look takes 3 s at
# most (`FETCH_TIMEOUT_S`), clocks kept by NTP differ by milliseconds.
SLACK = timedelta(seconds=5)
# A request lasts 10 minutes at most, and one of a batch is tried again within a day of its id.
MINTED_BEFORE = timedelta(days=2)
CHOICES_MAX = 8  # of one prompt: `gateway.surfaces.openai_text`
PROMPTS_MAX = 128  # of one completion: `gateway.surfaces.openai_completions`
ONE_CHOICE_AT_A_TIME = ("llmapi",)
TEXT_SURFACES = ("openai.chat", "openai.completions")

# What ended otherwise recorded no prompts, unless something of it is due.
_EVENTS = """
SELECT model, server, surface, status = 'ok',
       admitted_at >= %(from_at)s AND settled_at <= %(until)s,
       CASE WHEN surface IN ('openai.chat', 'openai.completions') THEN rows ELSE 1 END,
       least(retries, 8), count(*)
  FROM (SELECT model, server, surface, status, rows, retries, settled_at,
               COALESCE(admitted_at, event_at) AS admitted_at
          FROM usage_event
         WHERE event_day BETWEEN %(first_day)s AND %(last_day)s
           AND settled_at >= %(since)s AND model = ANY(%(models)s)) event
 WHERE admitted_at <= %(to_at)s
 GROUP BY 1, 2, 3, 4, 5, 6, 7
"""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many successes metering accounts for: no fewer than `low`, no more than `high`."""

    low: int = 0
    high: int = 0

    def __add__(self, other: "Bounds") -> "Bounds":
        """Both together."""
        return Bounds(self.low + other.low, self.high + other.high)


NOTHING = Bounds()


@dataclass(frozen=True, slots=True)
class Group:
    """Models of the catalog, and models of one Triton, that can only be counted together."""

    models: frozenset[str]
    upstreams: frozenset[str]


@dataclass(frozen=True, slots=True)
class Kind:
    """Events that are alike, and how many there are. `inside`: begun and ended between the looks.

    `prompts` is 1 but for a text engine's; `elsewhere`: another server than the one looked at is
    named; `sole`: no other one has its model.
    """

    surface: str
    adapter: str
    ok: bool
    inside: bool
    prompts: int
    retries: int
    events: int
    named: bool
    elsewhere: bool
    sole: bool


def bounds_of(kind: Kind) -> Bounds:
    """What these events add to what Triton must and may have counted. Pure."""
    least, most = _asked(kind)
    if kind.elsewhere:
        # The last of its requests was answered there; others of it, and tries, may have been here.
        return Bounds(0, kind.events * (most - 1 + kind.retries))
    if not kind.named or not kind.ok or not kind.inside:
        return Bounds(0, kind.events * most)
    return Bounds(kind.events * (least if kind.sole else 1), kind.events * most)


def _asked(kind: Kind) -> tuple[int, int]:
    """How many requests to Triton one of these events is, at least and at most."""
    if kind.surface not in TEXT_SURFACES:
        return 1, 1
    choices = CHOICES_MAX if kind.adapter in ONE_CHOICE_AT_A_TIME else 1
    if kind.prompts > 0 and kind.ok:
        return kind.prompts, kind.prompts * choices
    prompts = PROMPTS_MAX if kind.surface == "openai.completions" else 1
    return 0, prompts * choices


def groups_on(
    server: MeasuredServer, upstreams: Iterable[str], catalog: Iterable[CatalogEntry]
) -> list[Group]:
    """What is counted together on a server that has these models. Pure.

    A target that names no servers may be on any of the gateway's own, and these are not told here.
    """
    here = set(upstreams)
    found: list[Group] = []
    for entry in catalog:
        if entry.adapter == "openai":
            continue  # another protocol, in front of whatever engine
        reached = _upstreams_on(server, entry) & here
        if not reached:
            continue
        models = frozenset({entry.name})
        joined = frozenset(reached)
        for group in [each for each in found if each.upstreams & joined]:
            found.remove(group)
            models, joined = models | group.models, joined | group.upstreams
        found.append(Group(models, joined))
    return found


def _upstreams_on(server: MeasuredServer, entry: CatalogEntry) -> set[str]:
    if not entry.targets:
        return {entry.upstream}
    reached = set()
    for target in entry.targets:
        named = {as_named(name) for name in (*target.servers, *target.grpc_servers)}
        if not named or named & set(server.names):
            reached.add(target.upstream or entry.upstream)
    return reached


@dataclass(frozen=True, slots=True)
class Known:
    """What tells events apart: adapters by model, who is called what, who has which model."""

    adapters: Mapping[str, str]
    names: Mapping[str, str]  # by whatever a gateway calls it: our name for it
    servers_of: Mapping[str, frozenset[str]]  # by model: our names of those that have it


def accounted_for(
    server: MeasuredServer, group: Group, known: Known, began_at: datetime, ended_at: datetime
) -> Bounds:
    """Of a group on a server, between two looks. Needs the system's door."""
    rows = read(
        _EVENTS,
        {
            "from_at": began_at + SLACK,
            "until": ended_at - SLACK,
            "since": began_at - SLACK,
            "to_at": ended_at + SLACK,
            "first_day": (began_at - MINTED_BEFORE).date(),
            "last_day": (ended_at + timedelta(days=1)).date(),
            "models": sorted(group.models),
        },
    )
    total = NOTHING
    for model, called, surface, ok, inside, prompts, retries, events in rows:
        name = known.names.get(as_named(called), called)
        total += bounds_of(
            Kind(
                surface=surface,
                adapter=known.adapters[model],
                ok=ok,
                inside=inside,
                prompts=prompts,
                retries=retries,
                events=events,
                named=name != "",
                elsewhere=name not in ("", server.name),
                sole=known.servers_of.get(model, frozenset()) <= {server.name},
            )
        )
    return total


def names_of(servers: Iterable[MeasuredServer]) -> dict[str, str]:
    """Our name of a server by each name that gateways have for it."""
    return {name: server.name for server in servers for name in server.names}


def servers_by_model(
    groups: Mapping[str, Iterable[Group]],
) -> dict[str, frozenset[str]]:
    """Which servers have a model, from what is counted together on each."""
    found: dict[str, set[str]] = defaultdict(set)
    for server, on_it in groups.items():
        for group in on_it:
            for model in group.models:
                found[model].add(server)
    return {model: frozenset(names) for model, names in found.items()}
