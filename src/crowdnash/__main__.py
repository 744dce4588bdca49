"""`python -m crowdnash`: the command line."""

import sys

from crowdnash.cli.commands import main

sys.exit(main())
