"""The official code's command line, unchanged: `python train.py --model.hidden_size 768 ...`; see docs/paper.md."""

import sys

from shortcut_models.interop.flags import main

if __name__ == "__main__":
    sys.exit(main())
