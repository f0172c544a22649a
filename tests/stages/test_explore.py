"""The served report: ranges, compression, nothing beside it, and mistakes in one line."""

import asyncio
import contextlib
import errno
import gzip
import http.client
import io
import json
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import types
import urllib.parse
import urllib.request

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bsjax.core.errors import UserError
from bsjax.data.images import thumbnail
from bsjax.report.explorer.encode import ORIGINALS
from bsjax.report.explorer.site import write_site
from bsjax.report.tables import read_comparisons
from bsjax.stages.explore import MOST_PORTS, _names, explore, make_app, show, split_workdirs
from bsjax.stages.originals import LARGEST, META
from bsjax.stats import verdicts
from tests.annotations import unchecked
from tests.report.artifacts import write_arm, write_comparison
from tests.report.browser import BROWSERS, Watched, launched


@pytest.fixture
def workdir(tmp_path):
    (tmp_path / "report" / "data").mkdir(parents=True)
    (tmp_path / "report" / "index.html").write_text("<p>page</p>")
    (tmp_path / "report" / "data" / "site.js").write_text("x" * 10_000)
    (tmp_path / "secret").write_text("beside")
    return tmp_path


@pytest.fixture
def address(workdir):
    """NAME:PORT of the served report."""
    return urllib.parse.urlsplit(show(workdir, height=500).src).netloc


@pytest.fixture
def get(address):
    """(path, method, headers) -> status, headers, body."""

    def ask(path, method="GET", **headers):
        with contextlib.closing(http.client.HTTPConnection(address, timeout=20)) as wire:
            wire.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})
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


def test_nothing_beside_by_links_or_odd_paths(get, workdir):
    report = workdir / "report"
    (report / "link").symlink_to(workdir / "secret")
    (report / "folder").symlink_to(workdir)
    (report / "inside.html").symlink_to(report / "index.html")
    assert get("/inside.html")[2] == b"<p>page</p>"
    odd = ["/link", "/folder/secret", "/data/..%2f..%2fsecret", "/..%5csecret", "/%00", "/data"]
    for path in (*odd, f"/{workdir}/secret", f"/{'a' * 5000}"):
        status, _, body = get(path)
        assert (status, b"beside" in body) == (404, False), path


def test_only_reading(get):
    assert get("/index.html", "HEAD")[::2] == (200, b"")
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE"):
        status, headers, _ = get("/index.html", method)
        assert (status, headers["allow"]) == (405, "GET, HEAD")


def test_hosts_of_others_are_refused(get, address):
    port = address.rpartition(":")[2]
    for name in ("localhost", "127.0.0.1", "[::1]", "LocalHost", "[0:0:0:0:0:0:0:1]"):
        assert get("/index.html", host=f"{name}:{port}")[0] == 200, name
    wrong = [f"evil.example:{port}", f"localhost.evil.example:{port}", f"10.0.0.1:{port}"]
    for host in (*wrong, "localhost", "127.0.0.1:1", f"0.0.0.0:{port}"):
        status, headers, body = get("/index.html", host=host)
        assert status == 421, host
        assert headers["content-type"].startswith("text/plain")
        assert body.decode().count("\n") == 1 and f"take port {port}" in body.decode()
    for host in ("", f"evil@localhost:{port}", f"localhost:{port}/", "[::1", f"localhost:{port}x"):
        assert get("/index.html", host=host)[0] == 400, host


def test_a_request_without_a_host_is_refused(address):
    name, _, port = address.rpartition(":")
    two = f"Host: {address}\r\nHost: {address}\r\n"
    for head in ("GET /index.html HTTP/1.0\r\n", f"GET /index.html HTTP/1.1\r\n{two}"):
        with socket.create_connection((name, int(port)), timeout=20) as wire:
            wire.sendall(f"{head}\r\n".encode())
            assert b" 400 " in wire.makefile("rb").readline()


def ask_raw(app, host, server, scheme, path, query="", **more):
    """Status, headers and body of what is asked without a wire."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        await asyncio.Event().wait()  # whoever asks stays

    headers = {"host": host} | {name.replace("_", "-"): value for name, value in more.items()}
    scope = {"type": "http", "method": "GET", "path": urllib.parse.unquote(path)}
    scope |= {"headers": [(k.encode(), v.encode()) for k, v in headers.items()]}
    scope |= {"server": server, "scheme": scheme, "raw_path": path.encode(errors="replace")}
    asyncio.run(app(scope | {"query_string": query.encode(), "root_path": ""}, receive, send))
    found = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
    return sent[0]["status"], found, b"".join(m.get("body", b"") for m in sent)


def ask_app(app, host, server=("127.0.0.1", 80), scheme="http", path="/index.html"):
    """Status of the page, its headers and its text, asked without a wire."""
    status, headers, body = ask_raw(app, host, server, scheme, path)
    return status, headers, body.decode()


def test_the_given_host_is_right_and_so_are_all_of_this_machine(workdir):
    for host, header, status in (
        ("box.example", "box.example", 200),
        ("127.0.0.1", "box.example", 421),
        ("2001:DB8::1", "[2001:db8:0::1]", 200),
        ("0.0.0.0", "10.1.2.3", 200),  # where the request arrived
        ("::", "10.1.2.3", 200),
        ("0.0.0.0", socket.gethostname(), 200),
        ("0.0.0.0", "10.1.2.4", 421),
        ("0.0.0.0", "evil.example", 421),
        (None, "colab.example", 200),
    ):
        app = make_app(workdir, host)
        assert ask_app(app, header, ("::ffff:10.1.2.3", 80))[0] == status, (host, header)
    app = make_app(workdir)
    assert ask_app(app, "localhost", ("127.0.0.1", 443), "https")[0] == 200
    assert ask_app(app, "localhost", ("127.0.0.1", 443), "http")[0] == 421


def test_browsers_are_told_what_they_may_do(get, workdir):
    for path, status in (("/index.html", 200), ("/data/site.js", 200), ("/none", 404), ("/", 307)):
        found, headers, _ = get(path)
        assert found == status
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == "no-cache"
        # A notebook of this machine frames the page; `bsjax explore` lets nobody.
        assert "http://localhost:* " in headers["content-security-policy"]
        assert "x-frame-options" not in headers
    _, headers, _ = ask_app(make_app(workdir), "localhost")
    assert headers["content-security-policy"] == "frame-ancestors 'none'"
    assert headers["x-frame-options"] == "DENY"


def test_several_workdirs_are_served_under_their_names(tmp_path):
    paths = ["a/sd15", "a/sd21", "b/sd15", "a <i>, b"]
    for path in paths:
        (tmp_path / path / "report").mkdir(parents=True)
        (tmp_path / path / "report" / "index.html").write_text(f"page of {path}")
    text = ",".join(str(tmp_path / path) for path in paths[:3])
    assert split_workdirs(f"{text},") == [str(tmp_path / path) for path in paths[:3]]
    folder = tmp_path / paths[3]
    assert split_workdirs(str(folder)) == [str(folder)]  # a comma in its name
    app = make_app([*split_workdirs(text), folder])
    status, headers, page = ask_app(app, "localhost", path="/")
    assert status == 200 and headers["x-content-type-options"] == "nosniff"
    names = re.findall(r'href="/([^"]+)/"', page)
    assert names == ["a-sd15", "a-sd21", "b-sd15", f"{tmp_path.name}-a-i-b"]
    for name, path in zip(names, paths, strict=True):
        assert ask_app(app, "localhost", path=f"/{name}/")[2] == f"page of {path}"
    assert ask_app(app, "localhost", path="/a-sd15")[0] == 307
    assert ask_app(app, "localhost", path="/a/sd15/report/index.html")[0] == 404
    alone = make_app(split_workdirs(tmp_path / "a" / "sd15"))
    assert ask_app(alone, "localhost")[2] == "page of a/sd15"
    with pytest.raises(UserError, match="none/report holds no report"):
        make_app(split_workdirs(f"{tmp_path / 'a' / 'sd15'},{tmp_path / 'none'}"))


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["/x/a", "/x/b"], ["a", "b"]),
        (["/x/run", "/y/run"], ["x-run", "y-run"]),
        (["/x/r 1", "/x/r-1"], ["1-r-1", "2-r-1"]),
        (["/x/..", "/y/\u00e4!"], ["1", "2-\u00e4"]),
        (["/a", "/a"], ["1-a", "2-a"]),
    ],
)
def test_names_of_served_workdirs(folders, names):
    assert _names([pathlib.Path(folder) for folder in folders]) == names


def test_a_report_made_anew_is_seen(get, workdir):
    path = "/data/site.js"
    tag = get(path)[1]["etag"]
    status, headers, body = get(path, if_none_match=tag)
    assert (status, headers["cache-control"], body) == (304, "no-cache", b"")
    (workdir / "report" / "data" / "site.js").write_text("y" * 10_000)
    status, _, body = get(path, if_none_match=tag)
    assert (status, body[:1]) == (200, b"y")


def test_on_colab_the_proxy_decides(workdir, monkeypatch):
    served = {}

    def serve(port, **options):
        served.update(options, port=port)

    colab = types.ModuleType("google.colab")
    colab.output = types.SimpleNamespace(serve_kernel_port_as_iframe=serve)
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    assert show(workdir, height=300) is None
    assert (served["path"], served["height"]) == ("/index.html", "300")
    wire = http.client.HTTPConnection("127.0.0.1", served["port"], timeout=20)
    with contextlib.closing(wire):
        wire.request("GET", "/index.html", headers={"Host": "x-colab.googleusercontent.com"})
        response = wire.getresponse()
        assert response.status == 200
        assert response.headers["content-security-policy"] == "frame-ancestors *"


def serve_by_command(workdir, host, shown, connect):
    """Starts the command, reads its line and asks for the page."""
    command = [sys.executable, "-m", "bsjax.main", "explore", f"--workdir={workdir}", *host]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        for line in running.stderr:
            found = re.search(rf"http://{re.escape(shown)}:(\d+)", line)
            if found:
                break
        with urllib.request.urlopen(
            f"http://{connect}:{found[1]}/index.html", timeout=20
        ) as response:
            assert response.read() == b"<p>page</p>"
        running.terminate()


def test_by_command(workdir):
    serve_by_command(workdir, [], "127.0.0.1", "localhost")


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_by_command_at_the_newer_address(workdir, host):
    serve_by_command(workdir, [f"--host={host}"], "[::1]", "[::1]")


def test_mistakes(tmp_path, workdir):
    with pytest.raises(UserError, match="holds no report; run `bsjax report"):
        make_app(tmp_path / "empty")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} .*set another --port"):
            explore(workdir, port)


@pytest.mark.parametrize("port", [-1, MOST_PORTS + 1, "80", 80.0, True, None])
def test_a_port_that_is_none(workdir, port):
    with pytest.raises(UserError, match=r"set --port to 1 to 65535, or 0: any free$"):
        unchecked(explore)(workdir, port)


@pytest.mark.parametrize(
    "host", ["nosuch.invalid", "203.0.113.7", "http://localhost", "a" * 70, "..", "a\0b"]
)
def test_a_host_that_is_none(workdir, host):
    with pytest.raises(UserError, match="set --host to an address of this machine"):
        explore(workdir, 0, host)


def test_an_empty_host_is_not_every_address(workdir):
    for host in ("", " ", "[]"):
        with pytest.raises(UserError, match="--host is empty"):
            explore(workdir, 0, host)


def test_a_port_for_the_administrator(workdir, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket, "create_server", refuse)
    with pytest.raises(UserError, match="port 80 .*below 1024 .*set another --port"):
        explore(workdir, 80)


def test_a_workdir_of_nobody():
    with pytest.raises(UserError, match="--workdir=~nobody-of-that-name"):
        make_app("~nobody-of-that-name/run")


SIZES = {"0.png": (2000, 500), "1.jpg": (30, 40), "2.png": (30, 30)}


@pytest.fixture
def shown(tmp_path):
    """A workdir with a report whose images have these sizes, and the report's stamp."""
    workdir = tmp_path / "run"
    for name in ("real", "one"):
        write_arm(workdir, name, 4)
    for name, size in SIZES.items():
        Image.new("RGB", size, (200, 30, 60)).save(workdir / "measures" / "real" / name)
    (workdir / "measures" / "real" / "1.jpg").rename(workdir / "measures" / "real" / "1.png")
    write_comparison(workdir, "one", [verdicts.UNDECIDED] * 4)
    write_report(workdir)
    return workdir, json.loads((workdir / "report" / ORIGINALS).read_text())["stamp"]


def write_report(workdir, names=("one",)):
    comparisons = read_comparisons(workdir, names)
    places = np.zeros((4, 2), np.float32)
    cards = [{}] * len(names)
    write_site(workdir / "report", comparisons, places, list("abcd"), cards, [], thumbnail)


def ask_for(app, path, stamp, host="localhost", **headers):
    """Status, headers and body of an image of a served report."""
    query = urllib.parse.urlencode({"report": stamp})
    return ask_raw(app, host, ("127.0.0.1", 80), "http", path, query, **headers)


def test_images_are_decoded_and_sent_anew(shown):
    workdir, stamp = shown
    app = make_app(workdir)
    for row, size in enumerate([(LARGEST, LARGEST // 4), (30, 40), (30, 30)]):
        status, headers, body = ask_for(app, f"/originals/0/{row}", stamp)
        assert (status, headers["content-type"]) == (200, "image/webp")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-cache"
        image = Image.open(io.BytesIO(body))
        assert (image.format, image.size) == ("WEBP", size)
        assert np.abs(np.asarray(image.convert("RGB"))[5, 5] - np.array([200, 30, 60])).max() < 8
    assert ask_for(app, "/originals/1/0", stamp)[0] == 200  # of the generated set
    # Asked for again it is not decoded again, until the file is another.
    _, headers, _ = ask_for(app, "/originals/0/1", stamp)
    tag = {"if_none_match": headers["etag"]}
    assert ask_for(app, "/originals/0/1", stamp, **tag)[::2] == (304, b"")
    Image.new("RGB", (8, 9)).save(workdir / "measures" / "real" / "1.png")
    status, _, body = ask_for(app, "/originals/0/1", stamp, **tag)
    assert status == 200 and Image.open(io.BytesIO(body)).size == (8, 9)


def test_images_that_no_measures_name_are_not_served(shown, tmp_path):
    workdir, stamp = shown
    app = make_app(workdir)
    assert ask_for(app, "/originals/0/2", stamp)[0] == 200
    odd = ["0/3", "0/4", "0/-1", "0/99999999999999999999", "2/0", "-1/0", "0/x", "0/1.0", "a/0",
           "0/", "0/%00", "0/\u0662", "0/0/0", "../measures/real/0.png", "..%2f..%2fsecret/0",
           "0/..%2f..%2fmeasures%2freal%2f0.png", f"0/{'1' * 5000}"]  # fmt: skip
    for path in odd:  # of 0/3 the file is gone
        status, _, body = ask_for(app, f"/originals/{path}", stamp)
        assert (status, str(tmp_path).encode() in body) == (404, False), path
    assert ask_for(app, "/originals/0/2", "")[0] == 404  # the page of another report
    assert ask_for(app, "/originals/0/2", stamp + "x")[0] == 404
    assert ask_for(app, "/originals/0/2", stamp, host="evil.example")[0] == 421
    # What is no image is not sent, whatever its name says.
    (workdir / "measures" / "real" / "2.png").write_text("<script>secret</script>")
    status, _, body = ask_for(app, "/originals/0/2", stamp)
    assert (status, b"secret" in body) == (404, False)


@pytest.mark.parametrize("name", ["../elsewhere", "..", ".", "", "/etc", "a\\b", "no such set"])
def test_a_report_names_sets_of_its_workdir_alone(shown, name):
    workdir, stamp = shown
    shutil.copytree(workdir / "measures" / "real", workdir / "elsewhere")
    told = json.loads((workdir / "report" / ORIGINALS).read_text())
    told["arms"][0]["set"] = name
    (workdir / "report" / ORIGINALS).write_text(json.dumps(told))
    assert ask_for(make_app(workdir), "/originals/0/0", stamp)[0] == 404
    assert ask_for(make_app(workdir), "/originals/1/0", stamp)[0] == 200


def test_images_of_other_measures_are_not_served(shown):
    """Row numbers mean something within one measurement alone."""
    workdir, stamp = shown
    app = make_app(workdir)
    shutil.rmtree(workdir / "measures" / "real")
    write_arm(workdir, "real", 4, resize=30)
    assert ask_for(app, "/originals/0/0", stamp)[0] == 404
    path = workdir / "measures" / "one" / "images.parquet"
    table = pq.read_table(path)  # written by hand: it names another image
    elsewhere = pa.array([str(workdir.parent / "private.png")] * 4)
    pq.write_table(table.set_column(table.column_names.index("path"), "path", elsewhere), path)
    Image.new("RGB", (9, 9)).save(workdir.parent / "private.png")
    assert ask_for(app, "/originals/1/0", stamp)[0] == 404


def test_the_page_is_told_that_there_are_images(shown):
    workdir, _ = shown
    told = '<meta name="bsjax-originals"'
    _, _, page = ask_app(make_app(workdir), "localhost")
    assert page.count(told) == 1
    written = (workdir / "report" / "index.html").read_text()
    assert told not in written  # a page that lies elsewhere has no images
    assert len(page) == len(written) + len(META) + 1
    (workdir / "report" / ORIGINALS).unlink()
    _, headers, page = ask_app(make_app(workdir), "localhost")
    assert page == written and "etag" in headers


def test_several_workdirs_have_images_each(shown, tmp_path):
    workdir, stamp = shown
    other = tmp_path / "other"
    shutil.copytree(workdir, other)
    Image.new("RGB", (11, 7)).save(other / "measures" / "real" / "0.png")
    app = make_app([workdir, other])
    for name, size in (("run", (LARGEST, LARGEST // 4)), ("other", (11, 7))):
        _, _, body = ask_for(app, f"/{name}/originals/0/0", stamp)
        assert Image.open(io.BytesIO(body)).size == size
        for address in (f"/{name}/", f"/{name}/index.html"):
            assert META in ask_app(app, "localhost", path=address)[2]
    assert ask_for(app, "/originals/0/0", stamp)[0] == 404


@pytest.mark.parametrize("name", BROWSERS)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_the_page_shows_the_images_themselves(shown, name):
    """As large as they are; where a concept fires lies on what the encoder saw, the centre."""
    workdir, _ = shown
    address = urllib.parse.urlsplit(show(workdir).src).netloc
    with launched(name) as browser:
        watched = Watched(browser, None, "#view=images&image=a&mark=1", f"http://{address}")
        page = watched.page
        page.wait_for_selector(".large .full .heat")
        image = page.locator(".large .whole img").first
        assert image.evaluate("e => [e.naturalWidth, e.naturalHeight]") == [LARGEST, LARGEST // 4]
        box, heat = (page.locator(f".large .whole {kind}").first.bounding_box()
                     for kind in ("img", ".heat"))  # fmt: skip
        assert box["width"] / box["height"] == pytest.approx(4, rel=0.02)
        assert heat["width"] == pytest.approx(heat["height"], abs=1)
        assert heat["height"] == pytest.approx(box["height"], abs=1)
        middle = box["x"] + box["width"] / 2
        assert heat["x"] + heat["width"] / 2 == pytest.approx(middle, abs=1)
        watched.close()
        from_disk = Watched(browser, workdir / "report", "#view=images&image=a&mark=1")
        assert from_disk.page.locator(".large .whole img").first.get_attribute("src")[:5] == "data:"
        from_disk.close()
