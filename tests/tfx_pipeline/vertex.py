"""A server with the part of Vertex AI's REST interface that starts and schedules pipelines. It keeps what it gets."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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
        server = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, found = server._answer(self.command, self.path, json.loads(body or "{}"))
                data = json.dumps(found).encode()
                self.send_response_only(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = answer

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("localhost", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://localhost:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, method: str, path: str, body: dict) -> tuple[int, dict]:
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
