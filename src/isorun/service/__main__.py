"""`python -m isorun.service`: as `isorun serve`."""

import sys

from isorun.cli.main import main

if __name__ == "__main__":
    sys.argv[1:1] = ["serve"]
    main()
