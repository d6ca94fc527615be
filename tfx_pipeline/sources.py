"""Digests of the code of the components, so that results of changed code are never taken from the cache."""

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_PACKAGES = ("model", "pipeline", "tfx_pipeline")

# Modules of this project that each component runs. The codec and the batch job run in processes of their own and must
# be named, because the components do not import them.
INGESTION = ("tfx_pipeline.components.example_gen", "pipeline.batch.worker")
TRANSFORM = ("tfx_pipeline.preprocessing",)
TRAINING = ("tfx_pipeline.trainer",)
EVALUATION = ("tfx_pipeline.evaluation",)
DATA_GATE = ("tfx_pipeline.components.data_gate",)
SERVING_GATE = (
    "tfx_pipeline.components.canary_validator",
    "pipeline.colorize",
    "pipeline.batch.worker",
    "pipeline.batch.trial",
)
ALL = (*INGESTION, *TRANSFORM, *TRAINING, *EVALUATION, *DATA_GATE, *SERVING_GATE, "tfx_pipeline.local_runner")


def digest(modules: tuple[str, ...], root: Path = _ROOT) -> str:
    """Hexadecimal digest of the files of modules and of all modules of this project that they import."""
    found = hashlib.sha256()
    for name, file in sorted(imported(modules, root).items()):
        found.update(f"{name}\n".encode())
        found.update(hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()[:16]


def imported(modules: tuple[str, ...], root: Path = _ROOT) -> dict[str, Path]:
    """Files of modules and of all modules of this project that they import, directly or not, by dotted name."""
    found, waiting = {}, list(modules)
    while waiting:
        name = waiting.pop()
        file = _file(name, root)
        if file and name not in found:
            found[name] = file
            waiting += _imports(file)
            waiting.append(name.rpartition(".")[0])  # the package of a module is run before the module
    return found


def _imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            yield from (module, *(f"{module}.{alias.name}" for alias in node.names))


def _file(name: str, root: Path) -> Path | None:
    package, *rest = name.split(".")
    path = root.joinpath(package, *rest)
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if package in _PACKAGES and file.is_file()), None)
