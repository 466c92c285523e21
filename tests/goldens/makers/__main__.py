"""Command line of the makers; see the package's docstring."""

import sys

from tests.goldens.makers.frame import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
