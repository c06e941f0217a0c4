"""``python -m nlml_hpe`` is ``nlml-hpe``, also where the folder of installed commands is not on the path."""

import sys

from nlml_hpe.cli import main

if __name__ == "__main__":
    sys.exit(main())
