"""``python -m nlml_hpe.cli`` is ``nlml-hpe``."""

import sys

from nlml_hpe.cli import main

if __name__ == "__main__":
    sys.exit(main())
