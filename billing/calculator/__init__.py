"""What anything would cost: one question a line, as JSON. No tables."""
