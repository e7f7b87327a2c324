"""Previews of files, copies that browsers play, and the background look at what came in."""
