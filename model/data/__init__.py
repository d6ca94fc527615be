"""Training data: photographs and records, batches, artificial ageing, chroma bins."""
