"""Feedback on conversations."""
