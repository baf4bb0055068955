"""What a finished run holds besides its networks: figures, pictures to check with, names of its data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_kp.errors import ModelError
from edge_kp.files import parse_json, read_arrays
from edge_kp.types import Array


def check_images(path: Path, names: Sequence[str]) -> dict[str, Array]:
    """Network → uint8 (M, S, S, 3) held-back pictures.

    Raises:
        ModelError: there are none.
    """
    try:
        arrays = read_arrays(path)
        return {name: arrays[name] for name in names}
    except (OSError, KeyError, ValueError) as error:
        raise ModelError(
            f"{path}: no images to check with ({error}); run the same python -m edge_kp.train again"
        ) from error


def read_figures(path: Path) -> Any:
    """Figures that a training writes at its end.

    Raises:
        ModelError: it has not come so far.
    """
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path}: the run is not finished ({error}); run the same python -m edge_kp.train again"
        ) from error


def threshold_of(path: Path, figures: Any) -> float:
    """The locator's threshold among the figures that its training wrote to ``path``.

    Raises:
        ModelError: they do not tell it.
    """
    try:
        threshold = float(figures["threshold"])
        if not 0 <= threshold <= 1:
            raise ValueError(f"{threshold:g} is no score")
        return threshold
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: tells no threshold ({error}); train the locator again") from error


def data_names(specs: tuple[str, ...]) -> list[str]:
    """Data set names without the folders of this machine."""
    names = []
    for spec in specs:
        kind, _, rest = spec.partition(":")
        names.append(f"{kind}:{','.join(Path(part).name or part for part in rest.split(','))}")
    return names
