"""Attachments: references from a message to a blob, their links, and how files are served."""
