"""Names of the features of training examples, as the stages of a training pipeline pass them on.

Raw examples hold a photograph as it was ingested, Lab examples what a network trains on; they share
what describes it.
"""

# Of every example; bytes unless said.
KEY = "key"  # path relative to its collection
SOURCE = "source"  # URI
SHA256 = "sha256"  # of the file, hexadecimal
COLLECTION = "collection"
ERA = "era"  # in the collection's own words, such as "1930s"; "unknown" where nothing is known
LABELS = "labels"  # "name=value", any number
WIDTH, HEIGHT = "width", "height"  # int64, pixels of the upright original
MODE = "mode"  # of the original's pixels, in Pillow's words, such as "RGB"
COLORFULNESS = "colorfulness"  # float, Hasler-Suesstrunk M3 in 8-bit units

# Of raw examples only.
IMAGE = "image"  # PNG, RGB, upright sRGB, reduced
# Of Lab examples only.
LAB = "lab"  # PNG [S, S, 3] uint8: L* x 255/100, a* + 128, b* + 128
