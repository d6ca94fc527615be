"""A proxy in front of the Cloud Storage emulator. On request it answers 503 or closes the connection."""

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


def kind(method: str, path: str) -> str:
    """Kind of a request: upload, delete, list, read or stat."""
    parts = urlsplit(path)
    if method == "DELETE":
        return "delete"
    if parts.path.startswith("/upload/"):
        return "upload"
    if parts.path.startswith("/download/") or "alt=media" in parts.query:
        return "read"
    return "list" if parts.path.rstrip("/").endswith("/o") else "stat"


class Flaky:
    """Forwards requests, except for those that a test makes fail."""

    def __init__(self, target: str):
        self.failed: list[str] = []  # kinds of the failed requests, in order
        self._to_fail: list[list] = []
        self._lock = threading.Lock()
        address, proxy = urlsplit(target), self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                failure = proxy._failure(kind(self.command, self.path), self.path.encode() + body)
                if failure == "hang up":
                    self.close_connection = True
                    return
                if failure:
                    answer, headers, data = failure, [], b"busy"
                else:
                    upstream = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
                    upstream.request(self.command, self.path, body, dict(self.headers))
                    response = upstream.getresponse()
                    answer, headers, data = response.status, response.getheaders(), response.read()
                    upstream.close()
                self.send_response_only(answer)
                for name, value in headers:
                    if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = forward

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("localhost", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://localhost:{self._server.server_port}"

    def fail(self, wanted: str, number: int = 1, *, about: str = "", answer: int | str = 503) -> None:
        """Make the nth request of a kind fail, counted from now. Only requests with `about` in URL or body count."""
        self._to_fail.append([wanted, about.encode(), number, answer])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _failure(self, asked: str, content: bytes) -> int | str | None:
        with self._lock:
            for failing in self._to_fail:
                if failing[0] == asked and failing[1] in content:
                    failing[2] -= 1
                    if failing[2] == 0:
                        self._to_fail.remove(failing)
                        self.failed.append(asked)
                        return failing[3]
        return None
