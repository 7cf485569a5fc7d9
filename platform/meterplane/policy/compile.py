"""Compile each API key of an organisation into the one row the gateway reads about it.

Runs in the transaction of the change that made it necessary, under a lock on the organisation, so
two changes cannot overwrite each other's result. A document that did not change keeps its version.
The servings that policies name are stored in that same transaction.
"""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

import msgspec
from django.db import connection, transaction

from billing.pricing.contract_queries import agreed_entries, book_of_tenant
from billing.pricing.derive import dearest
from billing.pricing.entry import Entry
from billing.pricing.queries import ModelPrices, PublishedBook
from meterplane.catalog.models import Model
from meterplane.contracts import policy as contract
from meterplane.kernel import clock
from meterplane.policy.credit_limit import compiled_credit_limit
from meterplane.policy.effective_limits import Scopes, effective_limits, effective_restrictions
from meterplane.policy.models import GatewayPolicy
from meterplane.policy.publish import publish_versions
from meterplane.policy.servings import current_servings, forget_superseded
from tenants.models import ApiKey, Limit, Organisation, Restriction
from tenants.scoping import system_scope, tenant_scope


def recompile(tenant_id: UUID) -> None:
    """Recompile every key of the organisation; tell the gateways once the change has committed."""
    with tenant_scope(tenant_id):
        organisation = Organisation.objects.select_for_update(no_key=True).get(id=tenant_id)
        if not ApiKey.objects.any_row():
            return  # whoever makes the first key waits for this lock, and compiles it
        book = book_of_tenant(clock.now())
        models = compiled_models(book, agreed_entries(clock.now()))
        said = Said(
            list(Limit.objects.all()), list(Restriction.objects.all()), compiled_credit_limit()
        )
        before = {row.key_id: row for row in GatewayPolicy.objects.all()}
        changed: dict[UUID, int] = {}
        for key in ApiKey.objects.select_related("project"):
            policy = compile_key(organisation, key, book, models, said)
            row = before.get(key.id)
            if row is not None and bytes(row.digest) == bytes(key.digest) and _same(row, policy):
                changed[key.id] = row.version
                continue
            changed[key.id] = _store(policy, bytes(key.digest))
        transaction.on_commit(lambda: publish_versions(tenant_id, changed))


def recompile_everyone() -> int:
    """Recompile all organisations: after prices or the catalog changed. Returns how many.

    Always in the order of their ids: two of these at once wait for each other, never in a circle.
    """
    current_servings()  # also of an installation nobody has signed up to yet
    with system_scope("prices or catalog changed: list organisations"):
        tenant_ids = list(Organisation.objects.order_by("id").values_list("id", flat=True))
    for tenant_id in tenant_ids:
        recompile(tenant_id)
    with system_scope("servings no organisation's policy names are forgotten"):
        forget_superseded()
    return len(tenant_ids)


def compiled_models(
    book: PublishedBook | None, agreed: Sequence[Entry] = ()
) -> dict[str, contract.ModelPolicy]:
    """Models that are on offer and have a price. A model without a price is not for sale.

    `agreed` are entries of the organisation's contracts: where one is above the book, requests hold
    its price. Stores the servings that changed.
    """
    servings = current_servings()
    if book is None:
        return {}
    held = dearest(book.prices, agreed)
    return {
        model.name: _model_policy(
            model, serving_version, book.prices[model.name], held.get(model.name)
        )
        for model, serving_version in servings
        if model.name in book.prices
    }


class Said(NamedTuple):
    """What an organisation's rows say about its limits, read once for all of its keys.

    `credit` is the limit of one that is held to its credit.
    """

    limits: list[Limit]
    restrictions: list[Restriction]
    credit: contract.Limit | None = None


def compile_key(
    organisation: Organisation,
    key: ApiKey,
    book: PublishedBook | None,
    models: dict[str, contract.ModelPolicy],
    said: Said,
) -> contract.KeyPolicy:
    """One key's policy, with version 0 until it is stored."""
    scopes = Scopes(organisation.id, key.project_id, key.limits_scope_id or key.id, key.id)
    plan = organisation.plan
    limits = effective_limits(plan.limits if plan else [], said.limits, scopes)
    if said.credit is not None:
        limits.append(said.credit)
    allowed = effective_restrictions(plan.restrictions if plan else {}, said.restrictions, scopes)
    return contract.KeyPolicy(
        version=0,
        key_id=key.id,
        tenant_id=organisation.id,
        project_id=key.project_id,
        status=_status(organisation, key),
        status_reason=organisation.standing_reason,
        expires_at_ms=clock.to_ms(key.expires_at) if key.expires_at else None,
        currency=book.currency if book else organisation.currency,
        price_version_id=book.version_id if book else UUID(int=0),
        models=models
        if allowed.models is None
        else {name: model for name, model in models.items() if name in allowed.models},
        limits=limits,
        surfaces=allowed.surfaces,
        ip_ranges=allowed.ip_ranges,
        request_tokens_max=allowed.request_tokens_max,
        priority=msgspec.convert(organisation.priority, contract.Priority),
        weight=organisation.weight,
    )


def _status(organisation: Organisation, key: ApiKey) -> contract.KeyStatus:
    if key.status == ApiKey.Status.REVOKED:
        return "revoked"
    if organisation.standing == Organisation.Standing.SUSPENDED:
        return "suspended"
    return "active"  # past due still infers: dunning decides when that ends


def _model_policy(
    model: Model, serving_version: int, price: ModelPrices, held: ModelPrices | None
) -> contract.ModelPolicy:
    return contract.ModelPolicy(
        name=model.name,
        upstream=model.upstream,
        adapter=msgspec.convert(model.adapter, contract.Adapter),
        prices=_prices(price),
        context_tokens_max=model.context_tokens_max,
        output_tokens_max=model.output_tokens_max,
        output_tokens_default=model.output_tokens_default,
        output_tokens_reserved=_output_tokens_reserved(model),
        description=model.description,
        batch_prices=_batch_prices(price),
        reserve_prices=_prices(held) if held is not None else None,
        batch_reserve_prices=_batch_prices(held) if held is not None else None,
        serving_version=serving_version,
        created_at_s=clock.to_ms(model.created_at) // 1000,
    )


def _output_tokens_reserved(model: Model) -> int | None:
    if model.reserve != Model.Reserve.HISTORY or model.output_tokens_learned is None:
        return None
    return min(model.output_tokens_learned, model.output_tokens_max)


def _prices(price: ModelPrices) -> contract.UnitPrices:
    return contract.UnitPrices(
        input_token_pico=price.input_token_pico,
        output_token_pico=price.output_token_pico,
        request_pico=price.request_pico,
    )


def _batch_prices(price: ModelPrices) -> contract.UnitPrices | None:
    """All three or none, as the book promises."""
    if (
        price.batch_input_token_pico is None
        or price.batch_output_token_pico is None
        or price.batch_request_pico is None
    ):
        return None
    return contract.UnitPrices(
        input_token_pico=price.batch_input_token_pico,
        output_token_pico=price.batch_output_token_pico,
        request_pico=price.batch_request_pico,
    )


def _same(row: GatewayPolicy, policy: contract.KeyPolicy) -> bool:
    unversioned = msgspec.structs.replace(policy, version=row.version)
    return bool(row.document == msgspec.to_builtins(unversioned))


def _store(policy: contract.KeyPolicy, digest: bytes) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT nextval('gateway_policy_version')")
        version: int = cursor.fetchone()[0]
    versioned = msgspec.structs.replace(policy, version=version)
    GatewayPolicy.objects.update_or_create(
        key_id=policy.key_id,
        defaults={
            "tenant_id": policy.tenant_id,
            "digest": digest,
            "version": version,
            "document": msgspec.to_builtins(versioned),
            "compiled_at": clock.now(),
        },
    )
    return version
