"""What is said about each scan: its record, the manifest of all records, and their counts."""
