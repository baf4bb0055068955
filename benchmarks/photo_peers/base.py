"""What a system is to ``benchmarks.peer_photos``.

This file, and those with the systems, run under the systems' own Pythons: they import nothing of the project
but each other, apart from :mod:`benchmarks.photo_peers.own`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

NOT_INSTALLED = 3  # exit code; the same as in benchmarks.workers


class Peer(Protocol):
    """A face landmark detector that is told where the face is.

    Attributes:
        name: as it is called in results.
        about: what runs, in a few words.
        packages: distributions whose versions count.
        network: runs its networks once on input that lies ready in memory; None where that cannot be told
            apart from the rest.
    """

    name: str
    about: str
    packages: tuple[str, ...]
    network: Callable[[], object] | None

    def points(self, image: Array, box: Array) -> Array | None:
        """Landmarks of the face in a box.

        Args:
            image: uint8 BGR (H, W, 3).
            box: (4,) ``[x0, y0, x1, y1]`` around the 68 points of a face, pixels; pixel (0, 0) has its centre
                at (0, 0).

        Returns:
            (P, 2) pixels, or None where it finds no face.
        """


def not_installed(what: str) -> NoReturn:
    """End the process: the system is not installed under this Python, or broken. One line is told."""
    print(f"{sys.executable}: {' '.join(what.split())}", file=sys.stderr)
    sys.exit(NOT_INSTALLED)


def library(name: str) -> ModuleType:
    """The module ``name``; ends the process as :func:`not_installed` does where it cannot be imported."""
    try:
        return importlib.import_module(name)
    except Exception as error:  # beside packages that do not fit it, an import fails in any way
        not_installed(f"{name.partition('.')[0]} cannot be imported: {type(error).__name__}: {error}")


def warp(image: Array, matrix: Array, size: tuple[int, int], border: int) -> Array:
    """The crop whose pixel centre ``p`` shows the image at ``matrix`` (2, 3) · ``[p, 1]``; bilinear.

    Args:
        size: (width, height) of the crop.
        border: OpenCV's border mode for what lies outside of the image.
    """
    import cv2

    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(image, matrix, size, flags=flags, borderMode=border))
