"""gs:// without a network: objects in a folder, and nothing that an object store has not.

Folders are but the beginnings of names; no folder can be renamed, nothing tells a time of change,
and what is made only where it is not there (mkdir, mode "x") does not exist.
"""

import contextlib
import functools
import os

from etils.epath import backend, gpath
from fsspec.implementations.local import LocalFileSystem

PREFIX = "gs://"


class ObjectStore(LocalFileSystem):
    """gs://NAME is the file NAME below `root`."""

    protocol = "gs"
    cachable = False

    root = ""

    @classmethod
    def _strip_protocol(cls, path):
        path = os.fspath(path)
        if not path.startswith((PREFIX, cls.root)):
            return path.rstrip("/")  # a file of this machine, to be copied
        name = path.removeprefix(PREFIX).removeprefix(cls.root).strip("/")
        return os.path.join(cls.root, name)

    def unstrip_protocol(self, name):
        return PREFIX + name.removeprefix(self.root).strip("/")

    def mkdir(self, path, create_parents=True, **options):
        pass

    def makedirs(self, path, exist_ok=False):
        pass

    def isdir(self, path):
        return any(files for _, _, files in os.walk(self._strip_protocol(path)))

    def exists(self, path, **options):
        return self.isdir(path) or self.isfile(path)

    def info(self, path, **options):
        found = super().info(path, **options)
        for name in ("created", "mtime", "ino", "mode", "uid", "gid", "nlink"):
            found.pop(name, None)
        return found

    def ls(self, path, detail=False, **options):
        if not self.exists(path):
            raise FileNotFoundError(path)
        return super().ls(path, detail=detail, **options)

    def walk(self, path, **options):
        """As that of gs://: without the protocol."""
        del options
        root = self._strip_protocol(path)
        for place, folders, files in os.walk(root):
            yield place.removeprefix(self.root).strip("/"), folders, files

    def mv(self, *_, **__):
        raise NotImplementedError("an object store renames nothing")

    mv_file = rename = move = mv

    def _open(self, path, mode="rb", **options):
        if mode not in ("rb", "wb"):
            raise NotImplementedError(f"an object is read or written whole, not opened by {mode}")
        if mode == "wb":
            os.makedirs(os.path.dirname(path), exist_ok=True)
        return super()._open(path, mode, **options)


@contextlib.contextmanager
def as_gs(root):
    """Within it `epath.Path("gs://...")` is such a store."""
    kind = type("Store", (ObjectStore,), {"root": os.fspath(root)})
    store = kind(skip_instance_cache=True)
    kind = type(backend.fsspec_backend)
    before, is_installed = kind.fs, gpath._is_tf_installed
    kind.fs = lambda self, path: store
    gpath._is_tf_installed = functools.cache(lambda: False)
    try:
        yield store
    finally:
        kind.fs, gpath._is_tf_installed = before, is_installed
