"""What a folder of a run may be given as."""

import pathlib

from etils import epath

# On this machine, or in an object store (gs://...): a workdir, and what lies in one.
AnyPath = pathlib.Path | epath.Path
