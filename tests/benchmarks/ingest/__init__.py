"""`make bench-ingest`: how fast usage gets into PostgreSQL, and how fast it is read from there."""
