"""`python -m shortcut_models` is `shortcut`."""

import sys

from shortcut_models.cli import main

sys.exit(main())
