"""Colouring without networks: `rules`, `luminance_table` and `exemplar`. They are deterministic and have no weights.

Each is a predictor (`model.predictor.Predictor`), like a network. `model.color.propagation` spreads given colours.
"""
