"""Installs the package vistraj_jax; configs/, launch/ and tests/ are used from a checkout.

Lower and upper bounds are known-good versions; `requirements/lock-py311.txt` and
`lock-py312.txt` pin one tested environment each (see `make venv`). nuscenes-devkit is not named
here: its metadata asks for NumPy 1, yet it runs on NumPy 2, so it comes by a `--no-deps` step
(BUILD_NOTES.md). jax 0.11 and later needs Python 3.12.
"""

from setuptools import find_packages, setup

CORE = [
  "absl-py>=2.4",
  "einops>=0.8.2,<0.9",
  "flax>=0.12.8,<0.13",
  "google-crc32c>=1.7,<2",
  "grain>=0.2.18,<0.3",
  "huggingface_hub>=2,<3",
  "jax>=0.10,<0.13",
  "ml-dtypes>=0.5",
  "ml_collections>=1.1,<2",
  "numpy>=2.2,<2.5",
  "opencv-python-headless>=4.11",
  "optax>=0.2.8,<0.3",
  "orbax-checkpoint>=0.12,<0.13",
  "pillow>=12,<13",
  "protobuf>=6.33,<7",
  "safetensors>=0.8,<0.9",
  "scipy>=1.15",
  "simplejpeg>=1.9",
  "tensorboardX>=2.6.5,<3",
  "tensorflow-datasets>=4.9.10,<5",
  "tqdm>=4.66",
  "transformers>=5.17,<6",
]

NUSCENES = [  # what nuscenes-devkit really needs
  "cachetools",
  "descartes",
  "fire",
  "matplotlib>=3.10",
  "motmetrics==1.4.0",
  "pandas>=2.2",
  "parameterized",
  "pycocotools>=2.0.10",
  "pyquaternion>=0.9.9",
  "scikit-learn",
  "shapely>=2.0.7",
]

VIZ = ["av>=14", "matplotlib>=3.10"]

setup(
  name="vistraj-jax",
  version="0.1.0",
  description="Vision and trajectory models in JAX and Flax",
  license="Apache-2.0",
  packages=find_packages(include=["vistraj_jax*"]),
  python_requires=">=3.11",
  install_requires=CORE,
  extras_require={
    "gpu": ["jax[cuda]"],
    "tpu": ["jax[tpu]"],
    "nuscenes": NUSCENES,
    "prepare": ["apache-beam>=2.77,<3", "h5py>=3.12", *VIZ],
    "viz": VIZ,
    "test": ["pytest>=8", "pytest-xdist>=3.8", "ruff>=0.17,<0.18", "tensorboard>=2.20", *VIZ],
  },
)
