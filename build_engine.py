"""``python build_engine.py``: the same as ``python -m edge_kp.build_engine``."""

import sys

from edge_kp.build_engine import main

if __name__ == "__main__":
    sys.exit(main())
