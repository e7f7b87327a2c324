"""What a reader raises when a file cannot or must not be read."""


class NotReadable(Exception):
    """The file is damaged, locked or too large to open; the words are for the log."""
