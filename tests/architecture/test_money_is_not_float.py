"""No float near money.

A float sum depends on its order and a float price on its spelling; both end as a cent somebody
has to explain. Billing, pricing and everything named like an amount stays int, Decimal or text.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MONEY_FOLDERS = ["billing", "platform/meterplane/kernel/money.py", "platform/meterplane/contracts"]
MONEY_SUFFIXES = ("_nano", "_pico", "_minor")


def modules() -> list[Path]:
    found: list[Path] = []
    for name in MONEY_FOLDERS:
        path = ROOT / name
        found += [path] if path.is_file() else sorted(path.rglob("*.py"))
    return found


def _is_timeout(parent: ast.AST) -> bool:
    """Seconds are not money: names that end in `_s` or `_s_max` may hold a float."""
    targets = []
    if isinstance(parent, ast.Assign):
        targets = [target.id for target in parent.targets if isinstance(target, ast.Name)]
    if isinstance(parent, ast.AnnAssign) and isinstance(parent.target, ast.Name):
        targets = [parent.target.id]
    return bool(targets) and all(name.lower().endswith(("_s", "_s_max")) for name in targets)


def test_billing_and_money_hold_no_float():
    found = []
    for path in modules():
        tree = ast.parse(path.read_text())
        allowed = {
            id(node)
            for parent in ast.walk(tree)
            if _is_timeout(parent)
            for node in ast.walk(parent)
        }
        for node in ast.walk(tree):
            literal = isinstance(node, ast.Constant) and isinstance(node.value, float)
            named = isinstance(node, ast.Name) and node.id == "float"
            if (literal or named) and id(node) not in allowed:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
                divided = ast.unparse(node)
                if any(s in divided for s in MONEY_SUFFIXES) and "Decimal" not in divided:
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno} divides money by /")
    assert not found


def test_nothing_converts_an_amount_to_float():
    found = []
    for path in sorted((ROOT / "platform").rglob("*.py")) + sorted(
        (ROOT / "tenants").rglob("*.py")
    ):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            if node.func.id == "float" and any(s in ast.unparse(node) for s in MONEY_SUFFIXES):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not found
