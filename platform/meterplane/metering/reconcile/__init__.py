"""Journal, events, roll-ups and Triton's own counters, held to each other hour by hour."""
