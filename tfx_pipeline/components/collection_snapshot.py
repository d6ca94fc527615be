"""CollectionSnapshot: what the collections hold when a run begins, for runners that no machine of ours attends."""

import json

from tfx.dsl.component.experimental.annotations import Parameter
from tfx.dsl.component.experimental.decorators import component

from pipeline import snapshot


@component
def CollectionSnapshot(collections: Parameter[str], manifests: Parameter[str]):
    """Writes the manifests that CollectionExampleGen reads, as `pipeline.snapshot` does.

    Args:
        collections: JSON list of sources. manifests: folder.
    """
    snapshot.write(json.loads(collections), manifests)
