"""``python -m edgecompress``."""

import sys

from edgecompress.cli import main

if __name__ == "__main__":
    sys.exit(main())
