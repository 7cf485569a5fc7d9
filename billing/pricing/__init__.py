"""What a unit costs: price books, their immutable published versions, and when each applies."""
