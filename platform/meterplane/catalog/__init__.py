"""Models on offer: what a caller asks for, and how the gateway reaches and measures it."""
