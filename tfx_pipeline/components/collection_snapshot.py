"""CollectionSnapshot: lists the collections when a run begins, for runners in the cloud."""

import json

from tfx.dsl.component.experimental.annotations import Parameter
from tfx.dsl.component.experimental.decorators import component

from pipeline.inputs import snapshot


@component
def CollectionSnapshot(collections: Parameter[str], manifests: Parameter[str]):
    """Writes the manifests that CollectionExampleGen reads, as `pipeline.inputs.snapshot` does.

    Args:
        collections: JSON list of sources.
        manifests: folder.
    """
    snapshot.write(json.loads(collections), manifests)
