"""Runs the pipeline on this machine: `python -m tfx_pipeline.local_runner --collections photos --root run`.

Metadata are in SQLite below the root, so that unchanged work is not repeated. The same command continues a killed
run.
"""

import argparse
import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from model.training.options import OptionsError, write_json
from pipeline import clock, storage
from pipeline.errors import JobError
from pipeline.inputs.collection import check_input, check_output
from tfx_pipeline import arguments as common
from tfx_pipeline.terminal import leave, logging_to, no_arguments

NAME = "colorization"
PUSHED, FAILURE = 0, 1
CLOSED = {"data": 3, "quality": 4, "serving": 5}  # exit codes by gate
STAMP = "finished.json"  # inputs and pushed model of the last finished run

EPILOG = f"""\
below the root
  pushed/           models that passed all gates; `latest` names the current one
  runs/TIME/        report.html and log.txt of each run
  collections/      manifests of the collections
  artifacts/, metadata.sqlite, checkpoints/   of TFX and the training

exit codes
  0  pushed, or nothing has changed; with --colorize, the exit code of the batch job
  1  the run could not continue; its log.txt says why
  2  nothing was done, because an option or the input is wrong
  {CLOSED["data"]}  stopped by the data gate
  {CLOSED["quality"]}  stopped by the quality gate
  {CLOSED["serving"]}  stopped by the serving gate
  130, 143  stopped by SIGINT or SIGTERM; the same command continues
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = common.Parser(
        prog="python -m tfx_pipeline.local_runner",
        description="Train a model on collections of colour photographs, and push it if it passes all gates.",
        epilog=EPILOG,
    )
    work = result.add_argument_group("what to do")
    work.add_argument(
        "--collections",
        required=True,
        nargs="+",
        metavar="SRC",
        help="manifests (.jsonl: source, and collection, era, group, labels), folders, globs, gs://... or s3://...",
    )
    work.add_argument("--root", required=True, metavar="DIR", help="folder of the pipeline, on this machine")
    work.add_argument("--pushed", metavar="DIR", help="folder of the pushed models (default: ROOT/pushed)")
    work.add_argument(
        "--colorize",
        nargs=2,
        metavar=("SRC", "DST"),
        help="afterwards, colourise SRC into DST with the current model",
    )
    work.add_argument(
        "--worker_python",
        default="",
        metavar="FILE",
        help="Python interpreter of the batch worker, for the serving gate (default: this one)",
    )
    common.add_arguments(result)
    return result


def main(argv: list[str] | None = None, **settings) -> int:
    """Runs the command. Returns the exit code. Tests give other `settings` (see `tfx_pipeline.settings`)."""
    argv = sys.argv[1:] if argv is None else argv
    chosen = parser().parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"  # TFX loads it anyway
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _run(chosen, shlex.join(["python", "-m", "tfx_pipeline.local_runner", *argv]), settings)
    except common.USER_ERRORS as error:
        print(f"local_runner: {error}", file=sys.stderr)
        return common.USAGE
    except _Stopped as stopped:
        print("\nstopped; run the same command to continue", file=sys.stderr)
        return 128 + stopped.number
    except KeyboardInterrupt:
        print("\nstopped; run the same command to continue", file=sys.stderr)
        return 128 + signal.SIGINT
    finally:
        signal.signal(signal.SIGTERM, before)


class _Stopped(BaseException):
    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


def _interrupt(number, _):
    raise _Stopped(number)


def _run(chosen: argparse.Namespace, command: str, more: dict) -> int:
    root = storage.normalize(chosen.root)
    if storage.is_cloud(root):
        raise JobError("--root must be a local folder, because SQLite needs one; --pushed may be gs://")
    for source in chosen.collections:
        check_input(source)
        check_output(source, root)
    if chosen.colorize:
        source, output = chosen.colorize
        check_input(source)
        check_output(source, output)
    if chosen.worker_python and not os.access(chosen.worker_python, os.X_OK):
        raise JobError(f"--worker_python {chosen.worker_python} cannot be run")
    try:
        os.makedirs(root, exist_ok=True)
    except OSError as error:
        raise JobError(f"cannot make the folder --root {root}: {error.strerror}") from None
    logging.basicConfig(level=logging.ERROR)  # Beam logs much during its import
    with _locked(root):
        from pipeline.inputs import snapshot

        manifests = os.path.join(root, "collections")
        written = snapshot.write(chosen.collections, manifests)
        schema = common.schema_uri(chosen.schema, root)
        storage.write(schema, Path(chosen.schema).read_bytes())
        settings, thresholds = common.settings(
            chosen,
            schema=schema,
            manifests=manifests,
            pushed=storage.normalize(chosen.pushed or os.path.join(root, "pushed")),
            checkpoints=os.path.join(root, "checkpoints"),
            command=command,
            worker_python=chosen.worker_python,
            **more,
        )
        _check_weights(settings.options.weights, written)
        made_from = _made_from(settings)
        stamp = Path(root, STAMP)
        if stamp.is_file() and json.loads(stamp.read_text()) == [made_from, settings.state]:
            print(
                f"nothing has changed: version {settings.state.split()[0]} stays current ({settings.pushed})"
            )
            code = PUSHED
        else:
            code = _execute(root, settings, thresholds, chosen)
            if code == PUSHED:
                write_json(stamp, [made_from, common.state(settings.pushed)])
    if code == PUSHED and chosen.colorize:
        return _colorize(settings.pushed, *chosen.colorize)
    return code


def _check_weights(weights: dict[str, float], manifests: list[str]) -> None:
    from pipeline.inputs import snapshot

    if weights:
        there = {entry.collection for manifest in manifests for entry in snapshot.read(manifest)}
        if unknown := set(weights) - there:
            raise OptionsError(
                f"--weights: there is no collection {min(unknown)}; choose from {', '.join(sorted(there))}"
            )


def _made_from(settings) -> str:
    """Digest of everything that may change the result of a run, except the state of the pushed folder."""
    import dataclasses

    from tfx_pipeline import sources

    entries = dataclasses.asdict(settings) | {"state": "", "command": ""}
    files = {info.uri: storage.read(info.uri) for info in storage.list_files(settings.manifests)}
    found = hashlib.sha256(json.dumps(entries, sort_keys=True, default=str).encode())
    for uri, data in sorted(files.items()):
        found.update(f"{uri} {hashlib.sha256(data).hexdigest()}".encode())
    found.update(sources.digest(sources.ALL).encode())
    return found.hexdigest()


def _execute(root: str, settings, thresholds, chosen: argparse.Namespace) -> int:
    """Runs the DAG, prints the result, writes the report. Returns the exit code."""
    folder = Path(root, "runs", clock.label(clock.now()))
    folder.mkdir(parents=True)
    started = time.monotonic()
    print(f"{thresholds.name}: {chosen.thresholds}")
    with logging_to(folder / "log.txt"), no_arguments():
        from tfx.orchestration.local.local_dag_runner import LocalDagRunner
        from tfx.orchestration.metadata import Metadata, sqlite_metadata_connection_config

        from tfx_pipeline import report, runs
        from tfx_pipeline.artifacts import GateClosed
        from tfx_pipeline.pipeline import create_pipeline

        metadata = sqlite_metadata_connection_config(os.path.join(root, "metadata.sqlite"))
        beam_args = shlex.split(chosen.beam) or ["--runner=FnApiRunner"]
        dag = create_pipeline(
            NAME, os.path.join(root, "artifacts"), settings, metadata=metadata, beam_args=beam_args
        )
        closed = failure = None
        try:
            LocalDagRunner().run(dag)
        except GateClosed as error:
            print(" stopped")
            closed = error.verdict
        except Exception as error:  # any error of a component; the log has the traceback
            print(" failed")
            logging.getLogger(__name__).error("the run stopped", exc_info=error)
            failure = error
        if failure is None:
            with Metadata(metadata) as handle:
                run = runs.latest(handle.store, NAME)
            last_lines = report.last_lines(run, settings.pushed, closed)
            written = report.write(folder, run, thresholds, last_lines[0], closed)
    seconds = time.monotonic() - started
    if failure is not None:
        words = " ".join(str(failure).split())[:300]
        print(f"the run stopped after {seconds:.0f} s: {type(failure).__name__}: {words}")
        print(f"details are in {folder / 'log.txt'}")
        return FAILURE
    print(f"report: {written}")
    print(f"{thresholds.name}, {seconds:.0f} s")
    print("\n".join(last_lines))
    return CLOSED[closed.gate] if closed else PUSHED


def _colorize(pushed: str, source: str, output: str) -> int:
    from pipeline.colorize import main as colorize

    return colorize(["--input", source, "--output", output, "--model", pushed])


@contextlib.contextmanager
def _locked(root: str) -> Iterator[None]:
    """Allows one run at a time. The lock ends with the process."""
    with open(os.path.join(root, ".lock"), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JobError(f"another run is active in {root}") from None
        yield


if __name__ == "__main__":
    leave(main())
