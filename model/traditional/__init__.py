"""The ways of colouring that came before networks: deterministic, without weights, each a file.

`rules`, `luminance_table` and `exemplar` are predictors (`model.evaluation.Predictor`), to be compared with the
networks; `propagation` carries colours that somebody gave through a picture.
"""
