"""How Django writes instants: as `shown.utc` does, for whoever reads the console's tables."""
