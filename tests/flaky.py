"""A proxy in front of an object store. On request it answers 503, closes or cuts a connection, or is slow."""

import http.client
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


def kind(method: str, path: str) -> str:
    """Kind of a request to Cloud Storage or S3: upload, delete, list, read or stat."""
    parts = urlsplit(path)
    if method == "PUT" and not parts.path.startswith("/upload/"):
        return "upload"
    if method == "HEAD":
        return "stat"
    if not parts.path.startswith(("/storage/", "/upload/", "/download/", "/batch")) and method == "GET":
        return "list" if "list-type=2" in parts.query else "read"
    if method == "DELETE":
        return "delete"
    if parts.path.startswith("/upload/"):
        return "upload"
    if parts.path.startswith("/download/") or "alt=media" in parts.query:
        return "read"
    return "list" if parts.path.rstrip("/").endswith("/o") else "stat"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a client may close its connection
            super().handle_error(request, client_address)


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
                if isinstance(failure, int):
                    answer, headers, data = failure, [], b"busy"
                else:
                    upstream = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
                    headers = {name: value for name, value in self.headers.items() if name != "Expect"}
                    upstream.request(self.command, self.path, body, headers)
                    response = upstream.getresponse()
                    answer, headers, data = response.status, response.getheaders(), response.read()
                    upstream.close()
                self.send_response_only(answer)
                for name, value in headers:
                    kept = name.lower() == "content-length" and self.command == "HEAD"
                    if kept or name.lower() not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(name, value)
                if self.command != "HEAD" or isinstance(failure, int):
                    self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if failure == "cut":
                    self.close_connection = True
                    data = data[: len(data) // 2]
                if failure == "slow":
                    self.wfile.write(data[: len(data) // 2])
                    self.wfile.flush()
                    time.sleep(0.3)
                    data = data[len(data) // 2 :]
                self.wfile.write(data)

            do_HEAD = do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = forward

            def log_message(self, *_):
                """Says nothing."""

        self._server = _Server(("localhost", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://localhost:{self._server.server_port}"

    def fail(self, wanted: str, number: int = 1, *, about: str = "", answer: int | str = 503) -> None:
        """Make the nth request of a kind fail, counted from now. Only requests with `about` in URL or body count.

        The answer is a status, or "hang up" (before the answer), "cut" (in the middle of it), or "slow".
        """
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
