"""explore: serves a workdir's report to a browser; `bsjax.show` does so inside a notebook.

The report opens from disk as well; over HTTP it also opens on another machine, through a tunnel.
"""

import pathlib
import socket
import threading
from typing import Any

import uvicorn
from absl import logging
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import RedirectResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from bsjax.core.errors import UserError

LOOPBACK = "127.0.0.1"


def explore(workdir: pathlib.Path, port: int = 0, host: str = LOOPBACK) -> None:
    """Serves until interrupted and prints the address.

    Args:
      workdir: whose report/ is served, and nothing beside it.
      port: 0: any that is free.
      host: address to listen at; by default this machine alone can connect.

    Raises:
      UserError: there is no report, or the port is taken.
    """
    listening = _listen(host, port)
    server = _server(workdir)
    logging.info("explorer: http://%s:%d (Ctrl-C ends it)", host, listening.getsockname()[1])
    server.run(sockets=[listening])


def show(workdir: str | pathlib.Path, height: int = 860) -> Any:
    """Shows a workdir's explorer in a notebook, Colab included; for the last line of a cell.

    Args:
      workdir: of a run.
      height: pixels.

    Raises:
      UserError: there is no report.
    """
    from IPython.display import IFrame

    listening = _listen(LOOPBACK, 0)
    port = listening.getsockname()[1]
    server = _server(pathlib.Path(workdir))
    threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True).start()
    try:
        from google.colab import output  # a kernel on another machine than the browser
    except ImportError:
        return IFrame(f"http://{LOOPBACK}:{port}/", "100%", height)
    output.serve_kernel_port_as_iframe(port, height=str(height))
    return None


def make_app(workdir: pathlib.Path) -> Starlette:
    """The report as an application: ranges and compression, the page at /.

    Raises:
      UserError: there is no report.
    """
    folder = pathlib.Path(workdir).expanduser() / "report"
    if not (folder / "index.html").is_file():
        raise UserError(f"{folder} holds no report; run `bsjax report --workdir={workdir}` first")

    def home(request):
        del request
        return RedirectResponse("/index.html")

    routes = [Route("/", home), Mount("/", StaticFiles(directory=folder))]
    return Starlette(routes=routes, middleware=[Middleware(GZipMiddleware, minimum_size=1024)])


def _server(workdir: pathlib.Path) -> uvicorn.Server:
    return uvicorn.Server(uvicorn.Config(make_app(workdir), log_level="warning", lifespan="off"))


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise UserError(
            f"port {port} of {host} cannot be listened at ({error.strerror}); set another --port"
        ) from error
