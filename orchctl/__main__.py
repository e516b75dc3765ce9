"""`python -m orchctl`: the same as the console script."""

import sys

from orchctl.app import run

if __name__ == "__main__":
    sys.exit(run())
