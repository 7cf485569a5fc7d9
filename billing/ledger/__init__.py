"""Double entry: what is owed, earned, paid and held, insert-only. One writer, `post`."""
