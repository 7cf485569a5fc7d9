"""The derivation is whole: every call is found, every annotation is understood."""

import ast
import re

import pytest

from tests.stripe_sandbox.rig import Books, Sandbox
from tests.stripe_schema.exchange import Schema, installed
from tests.stripe_schema.kinds import Either, Kind, Mapped, Named, Page, Rows
from tests.stripe_schema.sources import INSTALLED, Sources

SENDING = re.compile(r"self\._request(?:_stream)?\(")


def test_every_call_of_every_service_is_found():
    written = sum(
        len(SENDING.findall(file.read_text())) for file in INSTALLED.rglob("_*_service.py")
    )
    found = list(installed().operations)
    assert len(found) == written > 600


def test_an_address_is_the_call_with_the_fewest_placeholders():
    find = installed().operations.find
    assert str(find("GET", "/v1/invoices/search")) == "GET /v1/invoices/search"
    assert str(find("GET", "/v1/invoices/in_1")) == "GET /v1/invoices/{invoice}"
    assert str(find("POST", "/v1/customers/cus_1")) == "POST /v1/customers/{customer}"
    assert find("POST", "/v1/invoices/in_1/settle") is None
    assert find("PATCH", "/v1/invoices/in_1") is None


@pytest.mark.long
def test_every_type_that_a_call_can_reach_is_understood():
    schema, seen = installed(), set[Named]()

    def walk(kind: Kind) -> None:
        match kind:
            case Named() if kind not in seen:
                seen.add(kind)
                for field in schema.kinds.structure(kind).fields.values():
                    walk(field.kind)
            case Rows(item=inner) | Mapped(value=inner):
                walk(inner)
            case Page(of=of, item=item):
                walk(of)
                walk(item)
            case Either(options=options):
                for option in options:
                    walk(option)

    for operation in schema.operations:
        walk(schema.operations.answer(operation))
        taken = schema.operations.parameters(operation)
        if taken is not None:
            walk(taken)
    assert len(seen) > 6_000


def test_a_field_that_a_new_release_moves_is_named(sandbox: Sandbox, books: Books):
    """The next major of the SDK, made from this one: two names are changed in its source."""
    sources = Sources()
    rename(sources, "stripe._invoice", "Invoice", amount_due="amount_owed")
    rename(sources, "stripe.params._invoice_pay_params", "InvoicePayParams", off_session="offline")
    schema = Schema(sources)
    target = f"/v1/invoices/{books.in_status('open')}"
    answer = sandbox.request("GET", target).json
    assert installed().check_response("GET", target, 200, answer) == []
    assert schema.check_response("GET", target, 200, answer) == [
        "amount_due is not Stripe's",
        "amount_owed is absent",
    ]
    said = schema.check_request("POST", f"{target}/pay", "off_session=true")
    assert said == ["off_session is unknown"]


def rename(sources: Sources, module: str, name: str, **names: str) -> None:
    for member in sources.module(module).classes[name].body:
        if isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name):
            member.target.id = names.get(member.target.id, member.target.id)
