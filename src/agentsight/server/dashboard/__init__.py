"""Pages for people: no SQL, no JSON, no rules."""
