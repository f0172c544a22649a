"""Tables of a data set on the hub are read in part, by ranges of bytes."""

import http.server
import io
import json
import threading
import urllib.parse

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import (
    HfFileSystem,
    configure_http_backend,
    constants,
    file_download,
)

from bsjax.core.errors import UserError
from bsjax.ingest.candidates import draw

N = 1000


def make_table():
    file = io.BytesIO()
    table = pa.table({
        "URL": [f"http://a/{i}" for i in range(N)], "TEXT": [f"c {i}" for i in range(N)],
        "image": ["y" * 5000] * N,
    })  # fmt: skip
    pq.write_table(table, file, row_group_size=100, compression="none", use_dictionary=False)
    return file.getvalue()


@pytest.fixture
def hub(monkeypatch):
    """Ranges that were read of owner/name's only table."""
    data, ranges = make_table(), []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def answer(self, content, status=200, **headers):
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_GET(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = urllib.parse.unquote(self.path.partition("?")[0])
            name = "data/train-0.parquet"
            if "owner/name" not in path:
                self.answer(b"", 404, X_Error_Code="RepoNotFound")
            elif "/resolve/" in path:
                first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
                part = data[int(first) : int(last) + 1]
                ranges.append(len(part))
                self.answer(part, 206, X_Repo_Commit="0" * 40)
            elif "/tree/" in path or "/paths-info/" in path:
                self.answer([{"type": "file", "path": name, "size": len(data), "oid": "1" * 40}])
            else:
                self.answer({"id": "owner/name", "sha": "0" * 40, "tags": [],
                             "siblings": [{"rfilename": name}]})  # fmt: skip

        do_HEAD = do_POST = do_GET

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    configure_http_backend()  # no session that an offline test left
    monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    HfFileSystem.clear_instance_cache()
    yield ranges, len(data)
    HfFileSystem.clear_instance_cache()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    "source", ["owner/name", "hf://datasets/owner/name/data/*.parquet"]
)  # fmt: skip
def test_rows_of_a_data_set_are_drawn(hub, source):
    found = draw(source, 5, 0)
    assert found.n_rows == N and len(found.candidates) == 5
    assert all(each.caption == f"c {each.row}" for each in found.candidates)


def test_what_the_hub_does_not_give_is_one_line(hub, monkeypatch):
    with pytest.raises(UserError, match="no such repository.*--source to a local copy"):
        draw("owner/other", 5, 0)
    with pytest.raises(UserError, match="no parquet files.*hf://datasets/owner/name/PATTERN"):
        draw("hf://datasets/owner/name/data/*.csv.parquet", 5, 0)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    HfFileSystem.clear_instance_cache()
    with pytest.raises(UserError, match="cannot be reached"):
        draw("owner/name", 5, 0)
