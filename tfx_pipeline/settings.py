"""Settings of a run of the pipeline."""

from dataclasses import dataclass, field

from model.training.options import Options
from pipeline.photographs.settings import Ingestion

LATEST, SHIPPED, NONE = "latest", "shipped", "none"  # models to start from


@dataclass(frozen=True)
class Settings:
    """Settings of a run. Folders are local, gs:// or s3://.

    Attributes:
        manifests: folder of the manifests of the collections, which `pipeline.inputs.snapshot` writes.
        pushed: folder of the pushed models.
        checkpoints: folder for the checkpoints of a killed training.
        schema: file of the schema.
        thresholds: text of the file of thresholds.
        ingestion: settings of the ingestion.
        collections: sources that the first component lists in `manifests`; empty if the runner has done this.
        side: height and width in pixels of Lab examples.
        options: of the training.
        warm: model to start from: `LATEST` (the current one), `NONE`, or the folder of an exported model.
        warm_sha256: digest of the weights of this model; if they change, the model is trained again.
        name, command, terms: for the model card.
        state: of the pushed folder; if it changes, cached results about it are not used.
        worker_python: interpreter in the environment of the batch worker; empty for this one.
        trainer: dotted name of the function that the Trainer runs.
    """

    manifests: str
    pushed: str
    checkpoints: str
    schema: str
    thresholds: str
    ingestion: Ingestion = field(default_factory=Ingestion)
    collections: tuple[str, ...] = ()
    side: int = 192
    options: Options = field(default_factory=Options)
    warm: str = LATEST
    warm_sha256: str = ""
    name: str = "fusion"
    command: str = ""
    terms: str = "Terms of the training data: not stated."
    state: str = ""
    worker_python: str = ""
    trainer: str = "tfx_pipeline.trainer.run_fn"
