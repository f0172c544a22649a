"""A server on this machine that answers as the Hugging Face hub does, well or badly."""

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator, Mapping
from typing import NamedTuple

SHA = "0123456789" * 4


class Answer(NamedTuple):
    """What is said about a repository: a status with the hub's headers, or its files."""

    status: int = 200
    code: str = ""
    message: str = ""
    body: bytes = b""
    files: Mapping[str, bytes] | None = None


@contextlib.contextmanager
def serve(answers: Mapping[str, Answer]) -> Iterator[tuple[str, list[str]]]:
    """Address of a server, and the paths that it is asked for.

    Args:
      answers: by the owner that is asked for.
    """
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            asked.append(self.path)
            status, body, headers = _reply(answers, self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _reply(answers: Mapping[str, Answer], path: str) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers."""
    listed = path.removeprefix("/api/models/")
    answer = answers[listed.lstrip("/").partition("/")[0]]
    if answer.files is None:
        headers = {"X-Error-Code": answer.code, "X-Error-Message": answer.message}
        return answer.status, answer.body, {k: v for k, v in headers.items() if v}
    if listed != path:
        siblings = [{"rfilename": n, "size": len(body)} for n, body in answer.files.items()]
        content = {"id": "owner/name", "sha": SHA, "siblings": siblings, "tags": []}
        return 200, json.dumps(content).encode(), {"Content-Type": "application/json"}
    name = path.partition(f"/resolve/{SHA}/")[2].partition("?")[0]
    etag = f'"{len(name)}{len(answer.files[name])}"'
    return 200, answer.files[name], {"ETag": etag, "X-Repo-Commit": SHA}
