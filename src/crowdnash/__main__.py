"""`python -m crowdnash`: the command line."""

import sys

from crowdnash.cli import main

sys.exit(main())
