"""CollectionExampleGen: makes clean, split examples from manifests of collections, and lists quarantined pictures."""

import dataclasses
import hashlib
import json
import os
from typing import Any

import apache_beam as beam
import tensorflow as tf
from google.protobuf import struct_pb2
from tfx import types
from tfx.components.example_gen import write_split
from tfx.components.example_gen.component import FileBasedExampleGen
from tfx.dsl.components.base import executor_spec
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import proto_utils

from model.data import features
from pipeline import storage
from pipeline.photographs.ingest import Photograph, Quarantined, counts, ingest
from pipeline.photographs.settings import Ingestion
from pipeline.photographs.splits import PARTS

COUNTS = "ingestion.json"  # in the folder of the examples
QUARANTINE = "quarantine"  # folder of gzipped JSON lines, in the folder of the examples
PATTERN = "*.jsonl"


class Executor(BaseBeamExecutor):
    """Runs `pipeline.photographs.ingest` and writes its splits as TFRecords."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        self._log_startup(input_dict, output_dict, exec_properties)
        examples = artifact_utils.get_single_instance(output_dict[standard_component_specs.EXAMPLES_KEY])
        examples.split_names = artifact_utils.encode_split_names(list(PARTS))
        manifests = _manifests(exec_properties)
        settings = Ingestion(**_settings(exec_properties))
        with self._make_beam_pipeline() as root:
            photographs, quarantined = ingest(root, manifests, settings)
            for part in PARTS:
                (
                    photographs
                    | f"Of[{part}]" >> beam.Filter(_is_of, part)
                    | f"Example[{part}]" >> beam.Map(to_example)
                    | f"Write[{part}]"
                    >> write_split.WriteSplit(
                        artifact_utils.get_split_uri([examples], part), example_gen_pb2.FORMAT_TFRECORDS_GZIP
                    )
                )
            (
                quarantined
                | "QuarantineLine" >> beam.Map(Quarantined.to_json)
                | "WriteQuarantine"
                >> beam.io.WriteToText(
                    os.path.join(examples.uri, QUARANTINE, "part"),
                    file_name_suffix=".jsonl.gz",
                )
            )
            (
                counts(photographs, quarantined)
                | "WriteCounts" >> beam.Map(_write_counts, os.path.join(examples.uri, COUNTS), manifests)
            )


def to_example(photograph: Photograph) -> tf.train.Example:
    """Makes a raw example with the features of `model.data.features`."""
    texts = {
        features.KEY: [photograph.key],
        features.SOURCE: [photograph.source],
        features.SHA256: [photograph.sha256],
        features.COLLECTION: [photograph.collection],
        features.ERA: [photograph.era],
        features.LABELS: photograph.labels,
        features.MODE: [photograph.mode],
    }
    entries = {name: _bytes(*(os.fsencode(text) for text in values)) for name, values in texts.items()}
    entries[features.IMAGE] = _bytes(photograph.image)
    for name, number in ((features.WIDTH, photograph.width), (features.HEIGHT, photograph.height)):
        entries[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=[number]))
    entries[features.COLORFULNESS] = tf.train.Feature(
        float_list=tf.train.FloatList(value=[photograph.colorfulness])
    )
    return tf.train.Example(features=tf.train.Features(feature=entries))


def _bytes(*values: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def _is_of(photograph: Photograph, part: str) -> bool:
    return photograph.part == part


def _manifests(exec_properties: dict[str, Any]) -> list[str]:
    """Manifests that the driver found, in order."""
    config = proto_utils.json_to_proto(
        exec_properties[standard_component_specs.INPUT_CONFIG_KEY], example_gen_pb2.Input()
    )
    base = exec_properties[standard_component_specs.INPUT_BASE_KEY]
    pattern = os.path.join(base, config.splits[0].pattern)
    return sorted(tf.io.gfile.glob(pattern))


def _settings(exec_properties: dict[str, Any]) -> dict[str, Any]:
    config = proto_utils.json_to_proto(
        exec_properties[standard_component_specs.CUSTOM_CONFIG_KEY], example_gen_pb2.CustomConfig()
    )
    packed = struct_pb2.Struct()
    config.custom_config.Unpack(packed)
    return json.loads(packed["settings"])


def _write_counts(found: dict, uri: str, manifests: list[str]) -> None:
    digests = {os.path.basename(name): hashlib.sha256(storage.read(name)).hexdigest() for name in manifests}
    storage.write(uri, json.dumps(found | {"manifests": digests}, indent=1).encode())


class CollectionExampleGen(FileBasedExampleGen):
    """An ExampleGen over a folder of manifests, as `pipeline.inputs.snapshot` writes them.

    The component runs again if a manifest has changed. Manifests name each picture with its size and version; the
    pictures may be anywhere.

    Args:
        manifests: the folder, local, gs:// or s3://. With a `pattern` that has `span-{SPAN}`, the latest span is read.
        settings: of the ingestion.
        sources: digest of the code of the ingestion, so that a change of the code leads to a new ingestion.
        pattern: of the manifests in the folder, in the syntax of ExampleGen.
    """

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(self, manifests: str, settings: Ingestion, sources: str, pattern: str = PATTERN):
        packed = struct_pb2.Struct()
        packed.update({"settings": json.dumps(dataclasses.asdict(settings)), "sources": sources})
        config = example_gen_pb2.CustomConfig()
        config.custom_config.Pack(packed)
        splits = [example_gen_pb2.SplitConfig.Split(name=part, hash_buckets=1) for part in PARTS]
        super().__init__(
            input_base=manifests,
            input_config=example_gen_pb2.Input(
                splits=[example_gen_pb2.Input.Split(name="all", pattern=pattern)]
            ),
            # Only the names of the splits matter here; the ingestion assigns the pictures.
            output_config=example_gen_pb2.Output(split_config=example_gen_pb2.SplitConfig(splits=splits)),
            custom_config=config,
        )
