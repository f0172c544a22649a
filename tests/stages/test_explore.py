"""The served report: ranges, compression, nothing beside it, and mistakes in one line."""

import contextlib
import gzip
import http.client
import re
import socket
import subprocess
import sys
import urllib.parse
import urllib.request

import pytest

from bsjax.core.errors import UserError
from bsjax.stages.explore import explore, make_app, show


@pytest.fixture
def workdir(tmp_path):
    (tmp_path / "report" / "data").mkdir(parents=True)
    (tmp_path / "report" / "index.html").write_text("<p>page</p>")
    (tmp_path / "report" / "data" / "site.js").write_text("x" * 10_000)
    (tmp_path / "secret").write_text("beside")
    return tmp_path


@pytest.fixture
def get(workdir):
    """(path, headers) -> status, headers, body."""
    address = urllib.parse.urlsplit(show(workdir, height=500).src)

    def ask(path, **headers):
        with contextlib.closing(http.client.HTTPConnection(address.netloc, timeout=20)) as wire:
            wire.request("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})
            response = wire.getresponse()
            return response.status, response.headers, response.read()

    return ask


def test_ranges_compression_and_nothing_beside(get):
    status, headers, _ = get("/")
    assert (status, headers["location"]) == (307, "/index.html")
    assert get("/index.html")[2] == b"<p>page</p>"
    _, headers, body = get("/data/site.js", accept_encoding="gzip")
    assert headers["content-encoding"] == "gzip"
    assert gzip.decompress(body) == b"x" * 10_000
    status, _, body = get("/data/site.js", range="bytes=5-9")
    assert (status, body) == (206, b"xxxxx")
    for path in ("/secret", "/../secret", "/%2e%2e/secret", "/data/../../secret"):
        assert get(path)[0] == 404


def test_by_command(workdir):
    command = [sys.executable, "-m", "bsjax.main", "explore", f"--workdir={workdir}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        for line in running.stderr:
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
            if found:
                break
        with urllib.request.urlopen(f"{found[0]}/index.html", timeout=20) as response:
            assert response.read() == b"<p>page</p>"
        running.terminate()


def test_mistakes(tmp_path, workdir):
    with pytest.raises(UserError, match="holds no report; run `bsjax report"):
        make_app(tmp_path / "empty")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} .*set another --port"):
            explore(workdir, port)
