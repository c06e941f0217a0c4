"""The list of a data set's faces, by the name that users of 6DRepNet know: ``--root_dir ROOT`` writes ROOT/files.txt.

As theirs it leaves out faces beyond 99 degrees and says how many. The same as
``python -m nlml_hpe.evaluation.datasets list ROOT``, which has more to choose.
"""

from __future__ import annotations

import argparse
import sys

import stages.guard  # noqa: F401

from nlml_hpe.evaluation.datasets.__main__ import main
from nlml_hpe.files.images import user_path


def command() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--root_dir", type=user_path, required=True, help="folder of the data set, as it is distributed"
    )
    parser.add_argument("--filename", default="files.txt", help="the list in that folder (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="replace a list that is there already")
    given = parser.parse_args()
    output = str(given.root_dir / given.filename)
    return main(["list", str(given.root_dir), "--output", output, *(["--force"] if given.force else [])])


if __name__ == "__main__":
    sys.exit(command())
