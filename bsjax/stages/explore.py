"""explore: serves a workdir's report to a browser; `bsjax.show` does so inside a notebook.

The report opens from disk as well; over HTTP it also opens on another machine, through a tunnel,
and shows images as large as their files have them.
"""

import errno
import html
import ipaddress
import os
import pathlib
import re
import socket
import threading
import urllib.parse
from collections.abc import Sequence
from typing import Any

import uvicorn
from absl import logging
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bsjax.core.errors import UserError
from bsjax.core.paths import AnyPath
from bsjax.report.explorer.single import as_one_page
from bsjax.stages.originals import report_routes

LOOPBACK = "127.0.0.1"
THIS_MACHINE = ("localhost", LOOPBACK, "::1")
MOST_PORTS = 65535
NOBODY, ANYBODY = "'none'", "*"
# Pages of a notebook on this machine: Jupyter's own, and VS Code's panes.
NOTEBOOKS = (
    "'self' http://localhost:* https://localhost:* http://127.0.0.1:* https://127.0.0.1:*"
    " vscode-webview: vscode-file:"
)
HOST = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<name>[^\[\]:/@\s]+))(?::(?P<port>\d{1,5}))?")
# Set where notebooks run whose browser reaches no other port of the kernel's machine.
ELSEWHERE = ("JUPYTERHUB_SERVICE_PREFIX", "KAGGLE_KERNEL_RUN_TYPE")
SCHEME_PORTS = {"http": 80, "https": 443}


def explore(workdir: str | AnyPath, port: int = 0, host: str = LOOPBACK) -> None:
    """Serves until interrupted and prints the address.

    Args:
      workdir: whose report/ is served, and the images in it; several with commas between them.
      port: 0: any that is free.
      host: address to listen at; by default this machine alone can connect.

    Raises:
      UserError: there is no report, the port is taken, or there is no such port or address.
    """
    host = host.strip().removeprefix("[").removesuffix("]")
    server = _server(make_app(split_workdirs(workdir), host))
    listening = _listen(host, port)
    if _is_every_address(host):
        logging.info("explorer: every address of this machine answers, for anyone who reaches it")
        host = LOOPBACK
    name = f"[{host}]" if ":" in host else host
    logging.info("explorer: http://%s:%d (Ctrl-C ends it)", name, listening.getsockname()[1])
    server.run(sockets=[listening])


def show(workdir: str | AnyPath, height: int = 860, inline: bool | None = None) -> Any:
    """Shows a workdir's explorer in a notebook; for the last line of a cell.

    On this machine and on Colab the page is served to the browser. Where the browser reaches no
    port of the kernel (JupyterHub, Kaggle) it stands in the notebook with all its data.

    Args:
      workdir: of a run.
      height: pixels.
      inline: put the page into the notebook; None: where the environment says JupyterHub or Kaggle.

    Raises:
      UserError: there is no report, or it is too large for a notebook.
    """
    from IPython.display import IFrame

    if any(name in os.environ for name in ELSEWHERE) if inline is None else inline:
        return _Inline(as_one_page(_report_of(workdir)), height)
    try:
        from google.colab import output  # a kernel on another machine than the browser
    except ImportError:
        output = None
    # Colab's proxy decides itself who may connect, and by which name.
    policy = (LOOPBACK, NOTEBOOKS) if output is None else (None, ANYBODY)
    server = _server(make_app(pathlib.Path(workdir), *policy))
    listening = _listen(LOOPBACK, 0)
    port = listening.getsockname()[1]
    threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True).start()
    if output is None:
        return IFrame(f"http://{LOOPBACK}:{port}/", "100%", height)
    # Not "/": the proxy follows no redirect.
    output.serve_kernel_port_as_iframe(port, path="/index.html", height=str(height))
    return None


class _Inline:
    """A page in a frame of its own, which has no other address than the notebook's output."""

    def __init__(self, page: str, height: int):
        self.page, self.height = page, height

    def _repr_html_(self) -> str:
        return (
            f'<iframe srcdoc="{html.escape(self.page)}" sandbox="allow-scripts allow-downloads"'
            f' width="100%" height="{self.height}" style="border: 0" title="explorer"></iframe>'
        )


def split_workdirs(workdir: str | AnyPath) -> list[str | AnyPath]:
    """The workdirs of a list with commas; a folder whose name has some is itself."""
    parts = [part.strip() for part in str(workdir).split(",")]
    if len(parts) == 1 or pathlib.Path(workdir).expanduser().is_dir():
        return [workdir]
    return [part for part in dict.fromkeys(parts) if part]


def make_app(
    workdirs: str | AnyPath | Sequence[str | AnyPath],
    host: str | None = LOOPBACK,
    frames: str = NOBODY,
) -> Starlette:
    """Reports as an application: ranges and compression; the page at /, of several a list there.

    Beside each page lie the images of its report, as `bsjax.stages.originals` has them.

    Args:
      workdirs: of a run, or of several, of which each is served under its folder's name.
      host: that it listens at, a name which requests may go to; None: they may go to any.
      frames: who may show the page in a frame, as in a policy's frame-ancestors.

    Raises:
      UserError: there is no report.
    """
    if isinstance(workdirs, (str, os.PathLike)):
        workdirs = [workdirs]
    folders = [_report_of(workdir) for workdir in workdirs]
    if len(folders) == 1:
        routes = [Route("/", lambda _: RedirectResponse("/index.html")), *report_routes(folders[0])]
    else:
        names = _names([folder.parent for folder in folders])
        routes = [Route("/", lambda _: HTMLResponse(_contents(names)))]
        routes += [Route("/index.html", lambda _: RedirectResponse("/"))]
        for name, folder in zip(names, folders, strict=True):
            routes.append(Mount(f"/{name}", routes=report_routes(folder, html=True)))
    middleware = [
        Middleware(_Guard, host=host, frames=frames),
        Middleware(GZipMiddleware, minimum_size=1024),
    ]
    return Starlette(routes=routes, middleware=middleware)


def _names(folders: Sequence[pathlib.Path]) -> list[str]:
    """A name for each, to stand in an address: the end of its path that tells it from the others.

    What an address gives a meaning to becomes "-".
    """
    paths = [folder.resolve() for folder in folders]
    n_parts = 1
    while n_parts < max(len(path.parts) for path in paths):
        if len({path.parts[-n_parts:] for path in paths}) == len(set(paths)):
            break
        n_parts += 1
    ends = ("-".join(path.parts[-n_parts:]) for path in paths)
    names = [re.sub(r"[^\w.-]+", "-", end).strip("-.") for end in ends]
    if all(names) and len(set(names)) == len(names):
        return names
    return [f"{place}-{name}".rstrip("-") for place, name in enumerate(names, 1)]


def _contents(names: Sequence[str]) -> str:
    """The page that leads to several reports."""
    items = "".join(
        f'<li><a href="/{urllib.parse.quote(name)}/">{html.escape(name)}</a></li>' for name in names
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>bsjax: reports</title>'
        '<meta name="viewport" content="width=device-width">'
        "<style>:root{color-scheme:light dark}body{font:1rem/1.6 system-ui,sans-serif;margin:2rem}"
        f"</style><h1>Reports</h1><ul>{items}</ul></html>"
    )


def _report_of(workdir: str | AnyPath) -> pathlib.Path:
    try:
        folder = pathlib.Path(workdir).expanduser() / "report"
    except RuntimeError as error:
        raise UserError(
            f"--workdir={workdir}: {error}; give the folder by its full path"
        ) from error
    if not (folder / "index.html").is_file():
        raise UserError(f"{folder} holds no report; run `bsjax report --workdir={workdir}` first")
    return folder


class _Guard:
    """Refuses requests that were meant for another site, and tells browsers what they may do.

    A page elsewhere may point its own name at this machine (DNS rebinding): its requests then bear
    that name as Host.
    """

    def __init__(self, app: ASGIApp, host: str | None, frames: str):
        self.app, self.host = app, host
        self.headers = {
            "x-content-type-options": "nosniff",
            "content-security-policy": f"frame-ancestors {frames}",
            "referrer-policy": "no-referrer",
            "cross-origin-resource-policy": "same-origin",
            # Kept, but asked for anew: `bsjax report` may have written another since.
            "cache-control": "no-cache",
        }
        if frames == NOBODY:
            self.headers["x-frame-options"] = "DENY"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self.headers)
            await send(message)

        refusal = self._refusal(scope)
        app = self.app if refusal is None else refusal
        await app(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        """What to say instead of serving; None where nothing is wrong."""
        if scope["type"] != "http":
            return None
        if scope["method"] not in ("GET", "HEAD"):
            text = f"{scope['method']} is not served here, GET and HEAD are\n"
            return PlainTextResponse(text, 405, headers={"allow": "GET, HEAD"})
        if self.host is None:
            return None
        given = Headers(scope=scope).getlist("host")
        found = HOST.fullmatch(given[0]) if len(given) == 1 else None
        if found is None:
            return PlainTextResponse("one Host header NAME:PORT is needed\n", 400)
        address, port = scope["server"]
        names = {*map(_plain, (*THIS_MACHINE, self.host))}
        if _is_every_address(self.host):
            names |= {_plain(address), _plain(socket.gethostname())}
        given_port = int(found["port"] or SCHEME_PORTS[scope["scheme"]])
        if _plain(found["six"] or found["name"]) in names and given_port == port:
            return None
        return PlainTextResponse(
            f"this is http://{LOOPBACK}:{port}, which was not asked for; through a tunnel, take"
            f" port {port} at both of its ends\n",
            421,
        )


def _plain(host: str) -> str:
    """One spelling of a host, be it a name or an address."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.casefold()
    return str(getattr(address, "ipv4_mapped", None) or address)


def _is_every_address(host: str) -> bool:
    return _plain(host) in ("0.0.0.0", "::")


def _server(app: Starlette) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(app, log_level="warning", lifespan="off", proxy_headers=False)
    )


def _listen(host: str, port: Any) -> socket.socket:
    """A socket that listens; host without brackets.

    Raises:
      UserError: it cannot, and why.
    """
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= MOST_PORTS:
        raise UserError(f"port {port!r} is none; set --port to 1 to {MOST_PORTS}, or 0: any free")
    if not host:
        raise UserError(f"--host is empty; set the address to listen at, such as {LOOPBACK}")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        # A name of both kinds: the older one, which every browser tries.
        family, *_, address = min(found, key=lambda each: each[0] != socket.AF_INET)
        both = _plain(host) == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(address, family=family, dualstack_ipv6=both)
    except (OSError, ValueError) as error:  # ValueError: what can be no name
        code = getattr(error, "errno", None) or 0
        reason = os.strerror(code) if code > 0 else getattr(error, "strerror", None) or error
        raise UserError(
            f"port {port} of {host!r} cannot be listened at ({reason}); {_way_out(error)}"
        ) from error


def _way_out(error: Exception) -> str:
    code = getattr(error, "errno", None)
    if isinstance(error, (socket.gaierror, ValueError)) or code == errno.EADDRNOTAVAIL:
        return f"set --host to an address of this machine, such as {LOOPBACK}"
    if code in (errno.EACCES, errno.EPERM):
        return "ports below 1024 are for the administrator; set another --port"
    return "set another --port, or none: any free"
