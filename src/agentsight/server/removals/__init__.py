"""Deletion: hide and bring back, erase down to the bytes, say what was done, and keep it erased."""
