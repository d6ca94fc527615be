"""An HTTP server on this machine with an interface that a test makes up."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextlib.contextmanager
def server(answer: Callable[[str, str, dict], tuple[int, dict]]) -> Iterator[str]:
    """Serves within the block. Yields the URL.

    Args:
        answer: takes method, path and JSON body of a request, and returns status and JSON body of the answer.
    """

    class Handler(BaseHTTPRequestHandler):
        def respond(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            is_json = "json" in self.headers.get("Content-Type", "")
            status, found = answer(self.command, self.path, json.loads(body) if body and is_json else {})
            data = json.dumps(found).encode()
            self.send_response_only(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = respond

    with ThreadingHTTPServer(("localhost", 0), Handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://localhost:{served.server_port}"
        served.shutdown()
