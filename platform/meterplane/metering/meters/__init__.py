"""What a meter of the catalog counts: its values over a period, exact."""
