"""The audit log: who read, shared, deleted and erased what. Only ever added to."""
