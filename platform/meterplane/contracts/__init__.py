"""What crosses a process, versioned. Pure values; nothing here does I/O."""
