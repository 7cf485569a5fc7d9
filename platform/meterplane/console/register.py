"""Which page shows which table. Nothing registers itself elsewhere."""


def everything() -> None:
    """Import the pages; each registers its models with the console's site."""
