"""One scan: decoding to luma, colouring, encoding. Nothing here imports Beam or TensorFlow."""
