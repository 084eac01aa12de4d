"""``python -m jaxchain``: the command."""

import sys

from jaxchain.cli import main

sys.exit(main())
