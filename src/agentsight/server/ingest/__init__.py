"""The one way in: gen A's write routes and our batch become items, applied in one unit of work."""
