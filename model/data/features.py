"""Names of the features of training examples in the training pipeline.

Raw examples hold an ingested photograph; Lab examples hold what a network is trained on. Both have the same
descriptive features.
"""

# In every example; bytes unless stated otherwise.
KEY = "key"  # path relative to its collection
SOURCE = "source"  # URI
SHA256 = "sha256"  # digest of the file, hexadecimal
COLLECTION = "collection"
ERA = "era"  # as the collection calls it, such as "1930s"; "unknown" if it is not known
LABELS = "labels"  # "name=value", any number
WIDTH, HEIGHT = "width", "height"  # int64, pixels of the upright original
MODE = "mode"  # Pillow's mode of the original, such as "RGB"
COLORFULNESS = "colorfulness"  # float, Hasler-Suesstrunk M3 in 8-bit units

# Only in raw examples.
IMAGE = "image"  # PNG, RGB, upright sRGB, reduced
# Only in Lab examples.
LAB = "lab"  # PNG [S, S, 3] uint8: L* x 255/100, a* + 128, b* + 128
