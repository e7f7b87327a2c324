"""Scanning files for malware, by a ClamAV daemon of the operator's."""
