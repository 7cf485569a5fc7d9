"""The data plane, between API keys and inference servers. No Django, no framework."""
