"""The pipeline on Vertex AI Pipelines: `python -m tfx_pipeline.vertex_runner {compile,submit,schedule}`.

`compile` needs no network and no project. Components run in a container of the given image, which must have this
package with its extra `tfx`. Beam stages run in this container, too, or on Dataflow with `--dataflow`. Workers of
Dataflow have an image of their own, which starts Beam's program.
"""

import argparse
import json
import os
import shlex
import sys
import tempfile
from pathlib import Path

from pipeline import storage
from pipeline.errors import JobError
from tfx_pipeline import arguments as common

SPEC = "pipeline.json"
# Their results depend on folders that may have changed since a run with the same options.
_UNCACHED = ("CollectionSnapshot", "Resolver")

EPILOG = """\
commands
  compile    writes the specification of the pipeline to --output and checks it; nothing leaves this machine
  submit     writes the schema below --root, compiles, and starts one run
  schedule   the same, but Vertex AI starts a run at the times of --cron; replaces the schedules with the name
             --pipeline

Each run first lists the collections, in ROOT/collections. A specification that was compiled without --collections
reads the manifests in this folder.
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = common.Parser(
        prog="python -m tfx_pipeline.vertex_runner",
        description="Compile the training pipeline for Vertex AI Pipelines, start it, or schedule it.",
        epilog=EPILOG,
    )
    result.add_argument("command", choices=("compile", "submit", "schedule"))
    work = result.add_argument_group("what and where")
    work.add_argument(
        "--collections",
        nargs="+",
        metavar="gs://...",
        help="gs://... folders, globs or manifests",
    )
    work.add_argument("--root", required=True, metavar="gs://...", help="folder of the pipeline")
    work.add_argument(
        "--pushed", metavar="gs://...", help="folder of the pushed models (default: ROOT/pushed)"
    )
    work.add_argument("--image", required=True, metavar="IMAGE", help="container image with this package")
    work.add_argument(
        "--pipeline", default="colorization", metavar="NAME", help="name of the pipeline (%(default)s)"
    )
    work.add_argument(
        "--output", default=SPEC, metavar="FILE", help="file of the specification (%(default)s)"
    )
    cloud = result.add_argument_group("Google Cloud")
    cloud.add_argument("--project", metavar="ID")
    cloud.add_argument("--region", metavar="REGION")
    cloud.add_argument("--service_account", metavar="EMAIL", help="account of the components")
    cloud.add_argument(
        "--kms_key", metavar="KEY", help="key that encrypts what the run leaves outside of --root"
    )
    cloud.add_argument(
        "--peered_network",
        metavar="NAME",
        help="projects/NUMBER/global/networks/NAME that components can reach",
    )
    cloud.add_argument("--cron", metavar="'M H D M W'", help="times for schedule, such as '0 3 * * 1'")
    dataflow = result.add_argument_group("Dataflow")
    dataflow.add_argument("--dataflow", action="store_true", help="run the Beam stages on Dataflow")
    dataflow.add_argument(
        "--worker_image", metavar="IMAGE", help="container image of its workers, not --image"
    )
    dataflow.add_argument("--worker_service_account", metavar="EMAIL", help="account of its workers")
    dataflow.add_argument(
        "--subnetwork", metavar="NAME", help="regions/REGION/subnetworks/NAME of its workers"
    )
    dataflow.add_argument(
        "--private_workers", action="store_true", help="its workers have no public addresses"
    )
    common.add_arguments(result)
    return result


def main(argv: list[str] | None = None) -> int:
    """Runs the command. Returns the exit code, which is 2 after one line about a user's mistake."""
    argv = sys.argv[1:] if argv is None else argv
    chosen = parser().parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    try:
        _check(chosen)
        command = shlex.join(["python", "-m", "tfx_pipeline.vertex_runner", *argv])
        job = compile_pipeline(chosen, command)
        print(f"compiled: {chosen.output}")
        if chosen.command != "compile":
            _start(job, chosen)
    except common.USER_ERRORS as error:
        print(f"vertex_runner: {error}", file=sys.stderr)
        return common.USAGE
    return 0


def compile_pipeline(chosen: argparse.Namespace, command: str):
    """Writes the specification. Returns it as a PipelineJob of the Vertex SDK, which parses it.

    Raises JobError if the SDK refuses it.
    """
    settings, _ = common.settings(
        chosen,
        manifests=storage.join(chosen.root, "collections"),
        pushed=chosen.pushed or storage.join(chosen.root, "pushed"),
        checkpoints=storage.join(chosen.root, "checkpoints"),
        schema=common.schema_uri(chosen.schema, chosen.root),
        collections=tuple(chosen.collections or ()),
        offline=chosen.command == "compile",
        command=command,
    )
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import aiplatform
    from tfx.orchestration.kubeflow.v2.kubeflow_v2_dag_runner import (
        KubeflowV2DagRunner,
        KubeflowV2DagRunnerConfig,
    )

    from tfx_pipeline.pipeline import create_pipeline

    dag = create_pipeline(
        chosen.pipeline, storage.join(chosen.root, "artifacts"), settings, beam_args=_beam_args(chosen)
    )
    config = KubeflowV2DagRunnerConfig(display_name=chosen.pipeline, default_image=chosen.image)
    with tempfile.TemporaryDirectory(prefix="compile-") as scratch:
        spec = KubeflowV2DagRunner(config, output_dir=scratch, output_filename=SPEC).run(dag)
    for task in _UNCACHED:
        spec["pipelineSpec"]["root"]["dag"]["tasks"].get(task, {}).pop("cachingOptions", None)
    storage.write(os.path.abspath(chosen.output), json.dumps(spec, indent=1).encode())
    offline = {"credentials": AnonymousCredentials()} if chosen.command == "compile" else {}
    try:
        return aiplatform.PipelineJob(
            display_name=chosen.pipeline,
            template_path=chosen.output,
            project=chosen.project or "compile-only",
            location=chosen.region or "us-central1",
            encryption_spec_key_name=chosen.kms_key,
            **offline,
        )
    except ValueError as error:
        raise JobError(f"Vertex AI does not accept {chosen.output}: {error}") from None


def _start(job, chosen: argparse.Namespace) -> None:
    """Starts the job on Vertex AI, now or at the times of `--cron`. Raises JobError if Google Cloud refuses."""
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    account = {"service_account": chosen.service_account, "network": chosen.peered_network}
    try:
        schema = common.schema_uri(chosen.schema, chosen.root)
        storage.write(schema, Path(chosen.schema).read_bytes())
        if chosen.command == "submit":
            job.submit(**account)
            print(f"started: {job.resource_name}")
        else:
            _schedule(job, chosen, account)
    except (GoogleAPIError, GoogleAuthError, OSError) as error:
        raise JobError(f"{chosen.command} failed: {' '.join(str(error).split())}") from error


def _schedule(job, chosen: argparse.Namespace, account: dict) -> None:
    """Makes the schedule, and removes earlier ones with its name. If this fails, the earlier ones continue.

    A schedule of Vertex AI keeps the specification with which it was made, so that it cannot be updated.
    """
    from google.cloud.aiplatform import PipelineJobSchedule
    from google.cloud.aiplatform_v1.types import Schedule

    earlier = PipelineJobSchedule.list(
        filter=f'display_name="{chosen.pipeline}"', project=chosen.project, location=chosen.region
    )
    active = [schedule for schedule in earlier if schedule.state == Schedule.State.ACTIVE]
    for schedule in active:
        schedule.pause()
    try:
        made = job.create_schedule(
            display_name=chosen.pipeline, cron=chosen.cron, max_concurrent_run_count=1, **account
        )
    except BaseException:
        for schedule in active:
            schedule.resume()
        raise
    print(f"scheduled: {made.resource_name}")
    for schedule in earlier:
        schedule.delete()
        print(f"removed: {schedule.resource_name}")


def _check(chosen: argparse.Namespace) -> None:
    wanted = {"compile": (), "submit": ("collections", "project", "region")}
    wanted["schedule"] = (*wanted["submit"], "cron")
    for name in wanted[chosen.command]:
        if not getattr(chosen, name):
            raise JobError(f"{chosen.command} needs --{name}")
    named = [("root", chosen.root), ("pushed", chosen.pushed or chosen.root)]
    for name, uri in named + [("collections", uri) for uri in chosen.collections or ()]:
        if not storage.is_gcs(uri):
            raise JobError(
                f"--{name} must be gs://..., because the machines of Vertex AI must reach it; got {uri}"
            )
    if chosen.dataflow and not (chosen.project and chosen.region and chosen.worker_image):
        raise JobError("--dataflow needs --project, --region and --worker_image")
    if chosen.worker_image == chosen.image:
        raise JobError(
            "--worker_image must not be --image: workers start Beam's boot program (see infra/docker/README.md)"
        )
    for name in ("worker_image", "worker_service_account", "subnetwork", "private_workers"):
        if getattr(chosen, name) and not chosen.dataflow:
            raise JobError(f"--{name} is for Dataflow: give --dataflow, too")


def _beam_args(chosen: argparse.Namespace) -> list[str]:
    given = shlex.split(chosen.beam)
    if not chosen.dataflow:
        return given or ["--runner=FnApiRunner"]
    return [
        "--runner=DataflowRunner",
        f"--project={chosen.project}",
        f"--region={chosen.region}",
        f"--temp_location={storage.join(chosen.root, 'temp')}",
        f"--sdk_container_image={chosen.worker_image}",
        "--experiments=use_runner_v2",
        *(
            [f"--service_account_email={chosen.worker_service_account}"]
            if chosen.worker_service_account
            else ()
        ),
        *([f"--subnetwork={chosen.subnetwork}"] if chosen.subnetwork else ()),
        *(["--no_use_public_ips"] if chosen.private_workers else ()),
        *([f"--dataflow_kms_key={chosen.kms_key}"] if chosen.kms_key else ()),
        *given,
    ]


if __name__ == "__main__":
    sys.exit(main())
