"""``python -m calibration``: the same as ``python -m edge_kp.calibrate``."""

import sys

from edge_kp.calibrate import main

if __name__ == "__main__":
    sys.exit(main())
