"""The pipeline for TFX, for any orchestrator."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from ml_metadata.proto import metadata_store_pb2
from tfx.components import Evaluator, ExampleValidator, StatisticsGen, Trainer, Transform
from tfx.components.schema_gen.import_schema_gen.component import ImportSchemaGen
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import trainer_pb2, transform_pb2

from pipeline.photographs.splits import PARTS
from tfx_pipeline import evaluation, sources
from tfx_pipeline import thresholds as limits
from tfx_pipeline.components.canary_validator import CanaryValidator
from tfx_pipeline.components.collection_snapshot import CollectionSnapshot
from tfx_pipeline.components.data_gate import DataGate
from tfx_pipeline.components.example_gen import CollectionExampleGen
from tfx_pipeline.components.pusher import Pusher
from tfx_pipeline.components.resolver import Resolver
from tfx_pipeline.settings import LATEST, NONE, Settings


def create_pipeline(
    name: str,
    root: str,
    settings: Settings,
    *,
    metadata: metadata_store_pb2.ConnectionConfig | None = None,
    beam_args: Sequence[str] = (),
) -> Pipeline:
    """Makes the pipeline.

    Args:
        name: of the pipeline.
        root: folder of the artifacts.
        settings: of the run.
        metadata: connection to their metadata; None if the orchestrator has its own.
        beam_args: options of Beam, for the stages that use it.
    """
    gates = settings.thresholds
    example_gen = CollectionExampleGen(
        settings.manifests, settings.ingestion, sources.digest(sources.INGESTION)
    )
    examples = example_gen.outputs["examples"]
    statistics_gen = StatisticsGen(examples=examples)
    schema_gen = ImportSchemaGen(schema_file=settings.schema)
    validator = ExampleValidator(
        statistics=statistics_gen.outputs["statistics"], schema=schema_gen.outputs["schema"]
    )
    resolver = Resolver(pushed_root=settings.pushed, state=settings.state).with_id("Resolver")
    data_gate = DataGate(
        examples=examples,
        statistics=statistics_gen.outputs["statistics"],
        schema=schema_gen.outputs["schema"],
        anomalies=validator.outputs["anomalies"],
        baseline=resolver.outputs["statistics"],
        thresholds=gates,
        sources=sources.digest(sources.DATA_GATE),
    ).with_id("DataGate")
    transform = Transform(
        examples=examples,
        schema=schema_gen.outputs["schema"],
        preprocessing_fn="tfx_pipeline.preprocessing.preprocessing_fn",
        splits_config=transform_pb2.SplitsConfig(analyze=["train"], transform=list(PARTS)),
        custom_config={"side": settings.side, "sources": sources.digest(sources.TRANSFORM)},
        disable_statistics=True,
    )
    transform.add_upstream_node(data_gate)
    trainer = Trainer(
        run_fn=settings.trainer,
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        schema=schema_gen.outputs["schema"],
        base_model=resolver.outputs["model"] if settings.warm == LATEST else None,
        train_args=trainer_pb2.TrainArgs(splits=["train"]),
        eval_args=trainer_pb2.EvalArgs(splits=["validation"]),
        custom_config={
            "options": asdict(settings.options),
            "checkpoints": settings.checkpoints,
            "warm": "" if settings.warm in (LATEST, NONE) else settings.warm,
            "warm_sha256": settings.warm_sha256,
            "name": settings.name,
            "terms": settings.terms,
            "sources": sources.digest(sources.TRAINING),
        },
    )
    evaluator = Evaluator(
        examples=transform.outputs["transformed_examples"],
        model=trainer.outputs["model"],
        baseline_model=resolver.outputs["model"],
        example_splits=["test"],
        eval_config=evaluation.eval_config(limits.parse(gates), sources.digest(sources.EVALUATION)),
        module_path=evaluation.__name__,
    )
    canary = CanaryValidator(
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        examples=examples,
        thresholds=gates,
        worker_python=settings.worker_python,
        sources=sources.digest(sources.SERVING_GATE),
    ).with_id("CanaryValidator")
    pusher = Pusher(
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        infra_blessing=canary.outputs["blessing"],
        evaluation=evaluator.outputs["evaluation"],
        examples=examples,
        statistics=statistics_gen.outputs["statistics"],
        data=data_gate.outputs["verdict"],
        serving=canary.outputs["verdict"],
        pushed_root=settings.pushed,
        command=settings.command,
        thresholds=gates,
    ).with_id("Pusher")
    first = []
    if settings.collections:
        listed = CollectionSnapshot(
            collections=json.dumps(settings.collections), manifests=settings.manifests
        ).with_id("CollectionSnapshot")
        example_gen.add_upstream_node(listed)
        first.append(listed)
    return Pipeline(
        pipeline_name=name,
        pipeline_root=root,
        components=[
            *first,
            example_gen,
            statistics_gen,
            schema_gen,
            validator,
            resolver,
            data_gate,
            transform,
            trainer,
            evaluator,
            canary,
            pusher,
        ],
        enable_cache=True,
        metadata_connection_config=metadata,
        beam_pipeline_args=list(beam_args),
    )
