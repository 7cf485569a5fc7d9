"""Who may call: organisations, projects, members, API keys, and the doors to a tenant's rows."""
