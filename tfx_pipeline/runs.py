"""The result of a run, its artifacts and verdicts, from the metadata store."""

from dataclasses import dataclass, field

from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2

from tfx_pipeline.artifacts import FAILED, Verdict

CACHED, COMPLETE = "cached", "complete"
_STATES = {
    metadata_store_pb2.Execution.CACHED: CACHED,
    metadata_store_pb2.Execution.COMPLETE: COMPLETE,
    metadata_store_pb2.Execution.FAILED: FAILED,
}


@dataclass(frozen=True)
class Run:
    """One run of the pipeline.

    Attributes:
        states: `CACHED`, `COMPLETE`, `FAILED` or "running", by node.
        uris: folder of the artifact, by (node, output).
        properties: custom properties of the artifact, by (node, output).
    """

    states: dict[str, str] = field(default_factory=dict)
    uris: dict[tuple[str, str], str] = field(default_factory=dict)
    properties: dict[tuple[str, str], dict] = field(default_factory=dict)

    @property
    def has_pushed(self) -> bool:
        """Whether a new version was pushed. A cached push, or a push of an existing model, makes none."""
        return self.states.get("Pusher") == COMPLETE and self._push.get("pushed") == 1

    @property
    def pushed_version(self) -> str:
        """Version of the model of this run; empty if it was never pushed."""
        return self._push.get("pushed_version", "")

    @property
    def _push(self) -> dict:
        return self.properties.get(("Pusher", "pushed_model"), {})

    def verdicts(self) -> list[Verdict]:
        """Verdicts of the gates that were reached, in order. The Pusher reads that of the quality gate."""
        uris = (self.uris.get((node, "verdict")) for node in ("DataGate", "CanaryValidator"))
        return [Verdict.read(uri) for uri in uris if uri]


def latest(store: MetadataStore, pipeline: str) -> Run:
    """Latest run of the pipeline in a metadata store."""
    contexts = store.get_contexts_by_type("pipeline_run")
    children = [c for c in contexts if _parent(store, c) == pipeline]
    run = Run()
    if not children:
        return run
    context = max(children, key=lambda child: child.id)
    for execution in store.get_executions_by_context(context.id):
        node = _node(store, execution.id)
        run.states[node] = _STATES.get(execution.last_known_state, "running")
        events = store.get_events_by_execution_ids([execution.id])
        outputs = [e for e in events if e.type == metadata_store_pb2.Event.OUTPUT]
        artifacts = {a.id: a for a in store.get_artifacts_by_id([e.artifact_id for e in outputs])}
        for event in outputs:
            key = node, event.path.steps[0].key
            artifact = artifacts[event.artifact_id]
            run.uris[key] = artifact.uri
            run.properties[key] = {name: _value(v) for name, v in artifact.custom_properties.items()}
    return run


def _parent(store: MetadataStore, context) -> str:
    return next((parent.name for parent in store.get_parent_contexts_by_context(context.id)), "")


def _node(store: MetadataStore, execution: int) -> str:
    contexts = store.get_contexts_by_execution(execution)
    return next(c.name.rpartition(".")[2] for c in contexts if c.type == "node")


def _value(value: metadata_store_pb2.Value):
    return getattr(value, value.WhichOneof("value"))
