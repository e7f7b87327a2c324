"""Conversations: rows, filters, transcripts, and what their owner does to them."""
