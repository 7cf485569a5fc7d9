"""Values and rules every part shares. Imports nothing of ours."""
