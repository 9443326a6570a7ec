"""Metrics in NumPy and double precision, one a file, and the records they make."""
