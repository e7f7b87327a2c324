"""The server: rooms of conversations, messages and files behind HTTP doors.

Needs the distribution's extra `server`. The SDK never imports anything from here.
"""
