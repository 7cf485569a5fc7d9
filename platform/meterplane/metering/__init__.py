"""From the gateways' journals to PostgreSQL, exactly once; roll-ups and usage queries."""
