"""A hub on this machine that keeps what is pushed: the parts of its interface that commits need."""

import base64
import contextlib
import hashlib
import http.server
import json
import threading
import urllib.parse
from collections.abc import Iterator

LARGE = 20_000  # bytes from which a file goes the way of large ones


class Hub:
    """What it holds, and what it was asked to do."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}  # other branches as owner/name@branch
        self.large: dict[str, bytes] = {}  # by sha256
        self.commits: list[str] = []  # messages
        self.uploads = 0
        self.is_private: dict[str, bool] = {}
        self.denies = 0  # status of every answer to a write; 0: none

    def oid(self, name: str) -> str:
        """Of a repository's newest commit."""
        content = sorted((k, hashlib.sha1(v).hexdigest()) for k, v in self.repos[name].items())
        return hashlib.sha1(json.dumps(content).encode()).hexdigest()


@contextlib.contextmanager
def serve() -> Iterator[tuple[str, Hub]]:
    """Address and content of an empty hub."""
    hub = Hub()

    def at_branch(repo: str, branch: str) -> str:
        """Key of a branch, or of the commit that its files make now."""
        keys = {hub.oid(key): key for key in hub.repos if key.partition("@")[0] == repo}
        keys["main"] = repo
        return keys.get(branch, f"{repo}@{branch}")

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def answer(self, status=200, content=b"", **headers):
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def do_GET(self):
            path = urllib.parse.unquote(self.path.partition("?")[0])
            parts = path.removeprefix("/api/models").split("/")[1:]
            repo = "/".join(parts[:2])
            if repo not in hub.repos:
                return self.answer(404, X_Error_Code="RepoNotFound")
            if parts[2:3] in (["revision"], ["tree"], ["resolve"]):
                repo = at_branch(repo, parts[3])
            if repo not in hub.repos:
                return self.answer(404, X_Error_Code="RevisionNotFound")
            files, sha = hub.repos[repo], hub.oid(repo)
            if path.startswith("/api/models/"):
                if "/tree/" in path:
                    return self.answer(200, [
                        {"type": "file", "path": k, "size": len(v), "oid": "0"}
                        for k, v in files.items()
                    ])  # fmt: skip
                named = [{"rfilename": k, "size": len(v)} for k, v in files.items()]
                return self.answer(200, {"id": repo, "sha": sha, "siblings": named, "tags": []})
            name = path.partition("/resolve/")[2].partition("/")[2]
            if name not in files:
                return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=sha)
            etag = f'"{hashlib.sha1(files[name]).hexdigest()}"'
            return self.answer(200, files[name], ETag=etag, X_Repo_Commit=sha)

        do_HEAD = do_GET

        def do_PUT(self):
            content = self.body()
            hub.large[hashlib.sha256(content).hexdigest()] = content
            hub.uploads += 1
            self.answer()

        def do_POST(self):
            content, path = self.body(), self.path.partition("?")[0]
            if hub.denies:
                return self.answer(hub.denies, {"error": "no"})
            if path == "/api/repos/create":
                asked = json.loads(content)
                name = f"{asked['organization']}/{asked['name']}"
                status = 409 if name in hub.repos else 200
                hub.repos.setdefault(name, {".gitattributes": b""})
                hub.is_private.setdefault(name, bool(asked.get("private")))
                return self.answer(status, {"url": f"{address}/{name}"})
            if path == "/api/validate-yaml":
                return self.answer(200, {"errors": [], "warnings": []})
            if path.endswith("/objects/batch"):
                return self.answer(200, {"transfer": "basic", "objects": [
                    asked if asked["oid"] in hub.large else asked | {
                        "actions": {"upload": {"href": f"{address}/put/{asked['oid']}"}}}
                    for asked in json.loads(content)["objects"]
                ]})  # fmt: skip
            repo, (what, branch) = "/".join(path.split("/")[3:5]), path.split("/")[5:7]
            if what == "branch":
                hub.repos.setdefault(f"{repo}@{branch}", dict(hub.repos[repo]))
                return self.answer(200, {})
            repo = at_branch(repo, branch)
            if "/preupload/" in path:
                return self.answer(200, {"files": [
                    {"path": f["path"], "shouldIgnore": False,
                     "uploadMode": "lfs" if f["size"] > LARGE else "regular"}
                    for f in json.loads(content)["files"]
                ]})  # fmt: skip
            for line in content.splitlines():
                change = json.loads(line)
                value = change["value"]
                if change["key"] == "header":
                    hub.commits.append(value["summary"])
                elif change["key"] == "file":
                    hub.repos[repo][value["path"]] = base64.b64decode(value["content"])
                elif change["key"] == "lfsFile":
                    hub.repos[repo][value["path"]] = hub.large[value["oid"]]
                else:
                    del hub.repos[repo][value["path"]]
            oid, name = hub.oid(repo), repo.partition("@")[0]
            return self.answer(
                200, {"commitUrl": f"{address}/{name}/commit/{oid}", "commitOid": oid}
            )

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield address, hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
