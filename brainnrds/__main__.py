"""``python -m brainnrds``: the BIDS App."""

import sys

from brainnrds.cli import main

sys.exit(main())
