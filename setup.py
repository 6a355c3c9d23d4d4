"""Installs the `tfrs_dlrm` library, its recipes, and the command `tfrs-dlrm`."""

from pathlib import Path

from setuptools import find_packages, setup

_SERVING = [
    "grpcio>=1.60",
    "grpcio-health-checking>=1.60",
    "httpx>=0.27",
    "orjson>=3.10",
    "prometheus-client>=0.20",
    "starlette>=0.37",
    "uvicorn>=0.30",
]
_RECIPES = {"tfrs_dlrm.configs": "configs", "tfrs_dlrm.configs.schemas": "configs/schemas"}
_KAFKA = "confluent-kafka>=2.5"
# TensorFlow before 2.18 needs NumPy 1, which later versions do not import with; they do not say so to pip.
_OLDER_PYARROW = "pyarrow<26"

setup(
    name="tfrs-dlrm",
    version="0.1.0",
    description="DLRM for TensorFlow: from raw click logs to a ranking model that TF Serving can load",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=[*find_packages(include=["tfrs_dlrm", "tfrs_dlrm.*"]), *_RECIPES],
    # Recipes stand in configs/, to be read and copied, and come with the package.
    package_dir=_RECIPES,
    package_data={
        "tfrs_dlrm": ["py.typed"],
        "tfrs_dlrm.embeddings.kernels": ["tables.cc"],
        "tfrs_dlrm.serving.server": ["page/*"],
        "tfrs_dlrm.tools.report": ["page.*"],
        "tfrs_dlrm.configs.schemas": ["*.json", "*.sql"],
    },
    entry_points={"console_scripts": ["tfrs-dlrm = tfrs_dlrm.cli:main"]},
    python_requires=">=3.10,<3.14",
    install_requires=[
        "absl-py>=2.1",
        "duckdb>=1.1",
        "google-crc32c>=1.5",
        "h5py>=3.8",
        "matplotlib>=3.8",
        "ml-collections>=1.1",
        "numpy>=1.26",
        "packaging>=22",
        "pyarrow>=16",
        "scipy>=1.11",
        "tensorflow>=2.16,<2.22",
        "tensorflow-recommenders>=0.7.7,<0.8",
        # The protos of TF Serving: of requests, and of the records that warm it up.
        "tensorflow-serving-api>=2.16,<2.22",
        "tensorboard>=2.16",
        # tf-keras pins the TensorFlow of its own minor version, so the two always match.
        "tf-keras>=2.16,<2.22",
        "tqdm>=4.66",
    ],
    extras_require={
        "gpu": ["tensorflow[and-cuda]>=2.16,<2.22"],
        # Both TensorFlows come, into one directory: they have to be of one version, and tensorflow-tpu has to be
        # installed once more after this; `tfrs-dlrm doctor` says how. With libtpu 0.0.32 and later the import of
        # tensorflow-tpu 2.20 aborts; protobuf 7 breaks its config protos.
        "tpu": ["tensorflow-tpu>=2.19,<2.21", "tensorflow>=2.19,<2.21", "libtpu<0.0.32", "protobuf<7"],
        # Its native ops load on TensorFlow <= 2.17 only.
        "io": ["tensorflow-io==0.37.1", "tensorflow<2.18", _OLDER_PYARROW, _KAFKA],
        # Training from a stream: --config.data.source=kafka://...
        "kafka": [_KAFKA],
        # The lowest versions that install_requires admits, for `make test-lowest`.
        "lowest": ["tensorflow==2.16.*", "tensorflow-serving-api==2.16.*", "tf-keras==2.16.*", _OLDER_PYARROW],
        # What `make bench` compares with. Where pip would take a CUDA build of torch, the one for CPUs does as well.
        # fbgemm-gpu-cpu 1.8.0 is built for torch 2.13.
        "bench": ["keras-rs>=0.4,<0.5", "torch==2.13.0", "fbgemm-gpu-cpu==1.8.0", "polars>=1.0"],
        # What `tfrs-dlrm compare` tunes with, and the trees that it compares with.
        "compare": ["lightgbm>=4.3", "optuna>=4.0"],
        # `tfrs-dlrm prepare --engine=spark`; it needs Java 17.
        "spark": ["pyspark[sql]>=4.0,<5"],
        # `tfrs-dlrm serve` and tfrs_dlrm.serving.ServingClient.
        "serving": _SERVING,
        # `make docs`
        "docs": [
            "ipykernel>=6.29",
            "mkdocs>=1.6,<2",
            "mkdocs-gen-files>=0.5",
            "mkdocs-material>=9.5,<10",
            "mkdocstrings[python]>=0.26",
            "nbconvert>=7.16",
        ],
        "dev": [
            *_SERVING,
            _KAFKA,
            "lightgbm>=4.3",
            "moto[s3,server]>=5",
            "mypy>=1.11",
            "onnxruntime>=1.17",
            "optuna>=4.0",
            "pandas>=2.1",
            "playwright>=1.40",
            "polars>=1.0",
            "psutil>=5.9",
            "pyspark[sql]>=4.0,<5",
            "pytest>=8",
            "pytest-cov>=7",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.5",
            "pyyaml>=6",
            "ruff>=0.6",
            "safetensors>=0.4.3",
            "scikit-learn>=1.4",
            "setuptools>=68",
            "tf2onnx>=1.16",
            "wheel>=0.43",
        ],
    },
)
