"""Organisations, their clients, the people who sign in, and the one-time links that let them."""
