"""Token usage, kept as it came with the word of what it means (`basis`)."""
