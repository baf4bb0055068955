"""What a model folder must give, as arrays by the names that the file of references has them under."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge_kp.modeldir import read_model
from edge_kp.parity import load_references


def reference_arrays(folder: Path) -> dict[str, np.ndarray]:
    """``NETWORK/image`` → uint8 (M, S, S, 3), and ``NETWORK/OUTPUT`` → results for these."""
    arrays = {}
    for network, reference in load_references(folder, read_model(folder)).items():
        arrays[f"{network}/image"] = reference.images
        arrays.update({f"{network}/{name}": value for name, value in reference.outputs.items()})
    return arrays
