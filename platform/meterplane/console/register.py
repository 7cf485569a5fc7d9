"""Which modules hold the console's pages. Importing one registers it with the console's site."""

from importlib import import_module

PAGES = (
    "customers",
    "plans",
    "served",
    "offer",
    "agreed",
    "metered",
    "quarantined",
    "sent",
    "raised",
    "owed",
    "heard",
    "settled",
    "interims",
    "dunned",
    "credited",
    "given_back",
    "corrected",
    "disputed",
    "taxed",
    "entered",
    "people",
)


def everything() -> None:
    """Import the pages. Called once, when all models are loaded."""
    for page in PAGES:
        import_module(f"meterplane.console.{page}")
