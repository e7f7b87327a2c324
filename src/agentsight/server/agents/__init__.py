"""Agents, their environments and their API keys."""
