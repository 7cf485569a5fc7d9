"""Only `billing/ledger/post.py` writes the ledger.

A second writer would have to know the lock, the hash, the bounds and the order of all this, and one
day would not. So nothing else may make or change a row of these tables: by their models, by a model
that was fetched by name, or by SQL in whatever string.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WRITER = ROOT / "billing/ledger/post.py"
MODELS = {"LedgerEntry", "LedgerLeg", "LedgerBalance"}
WRITES = {
    "create", "acreate", "bulk_create", "abulk_create", "get_or_create", "aget_or_create",
    "update_or_create", "aupdate_or_create", "update", "aupdate", "bulk_update", "abulk_update",
    "delete", "adelete", "save", "asave", "_raw_delete", "_insert", "_update",
}  # fmt: skip
# The table's name at the end of what writes it, quoted or with its schema or not.
SQL = re.compile(
    r"\b(insert\s+into|update(\s+only)?|delete\s+from(\s+only)?|merge\s+into|copy|truncate(\s+table)?"
    r"(\s+only)?|alter\s+table|disable\s+trigger)\s+([\w\"]+\s*\.\s*)?\"?"
    r"ledger_(entry|leg|balance)\b",
    re.IGNORECASE,
)


def _names(node: ast.AST) -> set[str]:
    names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    return names | {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}


def writes(source: str) -> Iterator[int]:
    """Lines of a module that would write the ledger."""
    if "ledger" not in source.lower():  # as each of its names has it
        return
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            called = node.func
            # LedgerEntry(...), and rows of it that are written: LedgerEntry.objects....create(...)
            name = called.id if isinstance(called, ast.Name) else ""
            attribute = called.attr if isinstance(called, ast.Attribute) else ""
            if MODELS & {name, attribute} or (attribute in WRITES and MODELS & _names(called)):
                yield node.lineno
            if "get_model" in {name, attribute} and "ledger" in ast.unparse(node).lower():
                yield node.lineno
        elif isinstance(node, ast.ImportFrom | ast.Import):
            # Under another name it would pass unseen; so would a star.
            for alias in node.names:
                if alias.asname not in (None, alias.name) and alias.name in MODELS:
                    yield node.lineno
                if alias.name == "*" and "ledger" in (getattr(node, "module", "") or ""):
                    yield node.lineno
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and SQL.search(node.value)
        ):
            yield node.lineno


def product_modules() -> list[Path]:
    roots = [ROOT / "platform", ROOT / "billing", ROOT / "tenants"]
    return [
        path
        for root in roots
        for path in sorted(root.rglob("*.py"))
        if path != WRITER and path.parent != ROOT / "billing/ledger/migrations"
    ]


def test_nothing_but_post_writes_the_ledger():
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in product_modules()
        for line in writes(path.read_text())
    ]
    assert found == []


def test_the_writer_writes():
    assert list(writes(WRITER.read_text()))


@pytest.mark.parametrize(
    "source",
    [
        "LedgerEntry.objects.create(kind='x')",
        "models.LedgerLeg.objects.bulk_create(rows)",
        "LedgerEntry(kind='x').save()",
        "models.LedgerLeg(amount_minor=1)",
        "LedgerEntry.objects.filter(id=1).update(memo='')",
        "LedgerBalance.objects.all().delete()",
        "LedgerLeg._base_manager.filter(id=1)._raw_delete('default')",
        "apps.get_model('ledger', 'LedgerEntry')",
        "from billing.ledger.models import LedgerLeg as Row",
        "from billing.ledger.models import *",
        "cursor.execute('INSERT INTO ledger_leg VALUES (1)')",
        "cursor.execute('insert  into\\n public.\"ledger_entry\" values (1)')",
        "cursor.execute(f'UPDATE ledger_balance SET balance_minor = {amount}')",
        "SQL = '''WITH x AS (DELETE FROM ledger_leg RETURNING *) SELECT * FROM x'''",
        "cursor.copy('COPY ledger_leg FROM STDIN')",
        "cursor.execute('TRUNCATE ledger_entry CASCADE')",
        "cursor.execute('ALTER TABLE ledger_entry DISABLE TRIGGER ALL')",
    ],
)
def test_a_second_writer_is_seen(source):
    assert list(writes(source))


@pytest.mark.parametrize(
    "source",
    [
        "LedgerEntry.objects.filter(kind='x').first()",
        "cursor.execute('SELECT count(*) FROM ledger_entry')",
        "post(kind='x', legs=legs)",
        "Invoice.objects.create(id=1)",
    ],
)
def test_a_reader_is_not(source):
    assert not list(writes(source))
