"""From quantities to amounts: one pure function. No tables, no clock, no I/O."""
