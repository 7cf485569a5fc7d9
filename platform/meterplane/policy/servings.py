"""How each model is reached, as versions the gateways read; a policy names the one it was made of.

Guarantees: a serving that did not change keeps its version; one that changed is stored under a new
version in the transaction that compiles the policies naming it, so that no policy names a version
that cannot be read. Versions are given out by one sequence: of two, the higher was made later.

Takes no lock. Two transactions may store the same change twice, and the policies of each name a
version that says the same; a lock here would be taken under an organisation's, and be waited for
by whoever holds it and wants the organisation.
"""

from datetime import timedelta

import msgspec
from django.db import connection

from meterplane.catalog.entry import CatalogEntry, entry_of
from meterplane.catalog.models import Model
from meterplane.catalog.queries import active_models
from meterplane.contracts import serving as contract
from meterplane.kernel import clock
from meterplane.kernel.limits import POLICY_CACHE_AGE_S_MAX
from meterplane.policy.models import GatewayModel

# A gateway holds a policy for a minute at most and reads what it names; an hour is sixty of those.
SUPERSEDED_KEPT_FOR = timedelta(seconds=60 * POLICY_CACHE_AGE_S_MAX)
VERSIONS_KEPT = 5  # of a model, for whoever asks how it was reached last week


def current_servings() -> list[tuple[Model, int]]:
    """Every model on offer with the version of its serving; stores the servings that changed."""
    # Before the models: a change that commits between the two reads is then compared with the
    # version before it and stored once more, never taken for an older state that was new.
    newest = _newest()
    return [(model, _version_of(model, newest.get(model.name))) for model in active_models()]


def compiled_serving(entry: CatalogEntry) -> contract.ModelServing:
    """One model's serving, with version 0 until it is stored."""
    targets = [
        contract.Target(
            name=target.name,
            upstream=target.upstream or entry.upstream,
            weight=target.weight,
            servers=[address.rstrip("/") for address in target.servers],
            grpc_servers=target.grpc_servers,
            version=target.version,
            region=target.region,
            gpu_type=target.gpu_type,
        )
        for target in entry.targets
    ]
    return contract.ModelServing(
        name=entry.name,
        version=0,
        targets=targets or [contract.Target(upstream=entry.upstream)],
        fallbacks=entry.fallbacks,
        chat_template=entry.chat_template,
        tokenizer=entry.tokenizer,
        parameters=entry.parameters,
        inputs=entry.inputs,
        outputs=entry.outputs,
        bill_errors=entry.bill_errors,
        continuous_usage=entry.continuous_usage,
        secret_env=entry.secret_env,
        first_byte_timeout_s=entry.first_byte_timeout_s,
        idle_timeout_s=entry.idle_timeout_s,
        duration_s_max=entry.duration_s_max,
        in_flight_max=entry.in_flight_max,
        queue_max=entry.queue_max,
        queue_s_max=entry.queue_s_max,
        priority_levels=entry.priority_levels,
    )


def forget_superseded() -> int:
    """Delete versions that are old, not among the last few of their model, and that no policy
    names. Returns how many. Needs the system's door: it looks at every organisation's policies."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH superseded AS (
              SELECT name, version FROM (
                SELECT name, version, compiled_at,
                       row_number() OVER (PARTITION BY name ORDER BY version DESC) AS place
                  FROM gateway_model) AS ranked
               WHERE place > %(kept)s AND compiled_at < %(before)s
            ), named AS (
              SELECT models.key AS name, (models.value ->> 'serving_version')::bigint AS version
                FROM gateway_policy, jsonb_each(document -> 'models') AS models
               -- Without candidates no policy is looked at.
               WHERE EXISTS (SELECT FROM superseded)
            )
            DELETE FROM gateway_model USING superseded
             WHERE gateway_model.name = superseded.name
               AND gateway_model.version = superseded.version
               AND NOT EXISTS (
                 SELECT FROM named
                  WHERE named.name = superseded.name AND named.version = superseded.version)
            """,
            {"kept": VERSIONS_KEPT, "before": clock.now() - SUPERSEDED_KEPT_FOR},
        )
        forgotten: int = cursor.rowcount
    return forgotten


def _newest() -> dict[str, GatewayModel]:
    rows = GatewayModel.objects.order_by("name", "-version").distinct("name")
    return {row.name: row for row in rows}


def _version_of(model: Model, newest: GatewayModel | None) -> int:
    serving = compiled_serving(entry_of(model))
    if newest is not None:
        unversioned = msgspec.structs.replace(serving, version=newest.version)
        if newest.document == msgspec.to_builtins(unversioned):
            return newest.version
    with connection.cursor() as cursor:
        cursor.execute("SELECT nextval('gateway_model_version')")
        version: int = cursor.fetchone()[0]
    versioned = msgspec.structs.replace(serving, version=version)
    GatewayModel.objects.create(
        name=model.name,
        version=version,
        document=msgspec.to_builtins(versioned),
        compiled_at=clock.now(),
    )
    return version
