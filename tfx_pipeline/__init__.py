"""The TFX pipeline: from collections of colour photographs to a blessed, pushed model."""
