"""The guarded process that decodes scans and encodes derivatives."""
