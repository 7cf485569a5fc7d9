"""What servers speak: each module asks one kind of engine and reads its counts."""
