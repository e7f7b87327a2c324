"""What opens files: one module a family. Imported by the examining process only."""
