"""The part of Vertex AI's REST interface that starts and schedules pipelines, for `tests.rest.server`."""

from urllib.parse import parse_qs, urlsplit

_EMPTY = {"@type": "type.googleapis.com/google.protobuf.Empty"}


class Vertex:
    """Jobs and schedules by resource name, as the client sent them."""

    def __init__(self):
        self.jobs: dict[str, dict] = {}
        self.schedules: dict[str, dict] = {}
        self.calls: list[str] = []  # method, and the last part of the path
        self.refused: set[str] = set()  # calls that are answered with 403
        self._made = 0

    def answer(self, method: str, path: str, body: dict) -> tuple[int, dict]:
        parts = urlsplit(path)
        name = parts.path.removeprefix("/v1/")
        call = f"{method} {name.rpartition('/')[2]}"
        self.calls.append(call)
        if call in self.refused:
            return 403, {"error": {"code": 403, "message": "no access\nto p", "status": "PERMISSION_DENIED"}}
        if method == "POST" and name.endswith("/pipelineJobs"):
            name = f"{name}/{parse_qs(parts.query)['pipelineJobId'][0]}"
            self.jobs[name] = body | {"name": name, "state": "PIPELINE_STATE_PENDING"}
            return 200, self.jobs[name]
        if method == "POST" and name.endswith("/schedules"):
            self._made += 1
            name = f"{name}/{self._made}"
            self.schedules[name] = body | {"name": name, "state": "ACTIVE"}
            return 200, self.schedules[name]
        if name.endswith("/schedules"):
            wanted = parse_qs(parts.query)["filter"][0].removeprefix('display_name="').removesuffix('"')
            return 200, {"schedules": [s for s in self.schedules.values() if s["displayName"] == wanted]}
        name, _, verb = name.partition(":")
        if name not in self.schedules:
            return 404, {"error": {"code": 404, "message": "not found", "status": "NOT_FOUND"}}
        if verb:
            self.schedules[name]["state"] = {"pause": "PAUSED", "resume": "ACTIVE"}[verb]
            return 200, {}
        if method == "DELETE":
            del self.schedules[name]
            return 200, {"name": f"{name}/operations/1", "done": True, "response": _EMPTY}
        return 200, self.schedules[name]
