"""What callers speak: each module reads requests of one surface and writes its answers. No I/O."""
