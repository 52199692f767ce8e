"""The upper limits of what is read, built and asked for, in one table. Each is far above any sane use.

The numbers of settings are checked with the settings, files by their sizes and headers, before anything is built.
`docs/reliability.md` lists them. This module imports nothing of autoseg.
"""

from __future__ import annotations

# --- files that people write ------------------------------------------------------------------------------------------

TEXT_BYTES = 4 * 2**20
"""Bytes of a file of settings, a space or a genotype."""
NODES = 400_000
"""Keys and values of such a file, aliases counted as often as they stand for something."""
DEPTH = 40
"""Levels of lists and mappings in each other."""
DIGITS = 40
"""Digits of a whole number in YAML."""
JSON_DIGITS = 300
"""Digits of a number in any JSON, which so fits into a float."""
NAME_BYTES, PATH_BYTES = 255, 4095
"""Bytes of a file's name and of a path, as of most systems."""

# --- arrays and images ------------------------------------------------------------------------------------------------

PIXELS = 178_956_970
"""Pixels of an image; Pillow has the same limit against decompression bombs."""
IMAGE_BYTES = 2**30
"""Bytes of a decoded image: the pixels above with three channels of 16 bits."""
CHANNELS = 1024
SIDE = 16_384
"""Height or width of a network's input, of a resized image, and of a crop."""
SNAPSHOT_BYTES = 64 * 2**20
"""Bytes of the arrays of an architecture snapshot; the largest legal space needs 300 kB."""

# --- settings ---------------------------------------------------------------------------------------------------------

IMAGES = 10_000_000
"""Images of a split."""
GENERATED = 1_000_000
"""Images of a generated split."""
BATCH = 65_536
EPOCHS = 1_000_000
STEPS = 10**12
SEED = 2**63 - 1
SECONDS = 1e12
FACTOR = 1e12
"""Weights, norms and other factors that have no limit of their own."""
VALUE = 1e30
"""Pixel values of float images, which float32 holds."""
CLASSES = 65_535
STORED = 2**32
"""Labels in mask files."""
SCALES = 64
NAMES = 64
"""Names in a list of operations, upsamplers, skips, moves or terms of a loss."""

# --- architectures ----------------------------------------------------------------------------------------------------

LAYERS = 256
ARROWS = 16_384
BLOCKS, EDGES = 64, 64
"""Blocks of a genotype's cell or of a stage, and edges of a block."""
STEM = 64
RATES = 64
OPERATIONS = 2_000
"""Operations of a discrete network: edges in all its layers."""
CANDIDATES = 150_000
"""Operations that compete in a supernet: arrows into cells, times edges, times operations."""
