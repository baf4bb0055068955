"""``python -m benchmarks.fuzzing MODULE FOLDER``: see :mod:`benchmarks.fuzzing.worker`."""

import sys
from pathlib import Path

from benchmarks.fuzzing.worker import main

main(sys.argv[1], Path(sys.argv[2]))
