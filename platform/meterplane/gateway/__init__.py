"""The data plane: a plain ASGI application between API keys and inference servers. No Django."""
