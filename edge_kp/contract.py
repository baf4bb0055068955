"""Is a network the one that ``model.json`` describes? By what its file tells, and by what it gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edge_kp.backends.base import Backend
from edge_kp.errors import ModelError
from edge_kp.files import parse_json
from edge_kp.modeldir import NETWORKS, PRECISIONS, ModelSpec

_ADVICE = "copy the whole model folder or export it again"
_ROUNDING = 1e-3
_FREE = ("name", "threshold")  # what the owner of a folder may change in model.json


def check_contract(path: Path, spec: ModelSpec, network: str, precision: str) -> None:
    """Hold the contract that an ONNX file carries against ``model.json``.

    Raises:
        ModelError: it was exported as another network, or with another schema, shape or crop.
    """
    content = path.read_bytes()
    told = [_metadata(content, f"edge_kp.{key}") for key in ("network", "precision", "spec")]
    if told[:2] != [network, precision]:
        known = told[0] in NETWORKS and told[1] in PRECISIONS
        but = f"{told[0]} in {told[1]}" if known else "a file that does not tell what it is"
        raise ModelError(f"{path}: is not {network} in {precision}, but {but}; {_ADVICE}")
    try:
        carried = dict(parse_json(told[2] or ""))
    except (ValueError, TypeError) as error:
        raise ModelError(f"{path}: carries no contract ({error}); {_ADVICE}") from error
    described = spec.to_json()
    described |= described[network]
    wrong = [key for key in carried if key not in _FREE and carried[key] != described.get(key)]
    if wrong:
        raise ModelError(
            f"{path}: was exported with another {', '.join(wrong)} than model.json has; {_ADVICE}"
        )


def _metadata(content: bytes, key: str) -> str | None:
    """A text that an ONNX file carries, read without a library for it; None where there is none.

    In its protocol buffer the key is followed by 0x12, the value's length as a varint, and the value.
    """
    _, found, rest = content.partition(key.encode() + b"\x12")
    if not found:
        return None
    length = 0
    for place, byte in enumerate(rest[:5]):
        length |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return rest[place + 1 : place + 1 + length].decode("utf-8", "replace")
    return None


def check_outputs(path: Path, spec: ModelSpec, network: str, backend: Backend) -> None:
    """Run a network on a black image, and look whether it gives what :class:`ModelSpec` promises.

    Raises:
        ModelError: an output is missing, has another shape, or is no probability where it should be one.
        BackendError: it cannot be run.
    """
    size, n = spec.input_size(network), len(spec.schema)
    shapes: dict[str, tuple[Any, ...]] = {"boxes": (1, None, 4), "score": (1, None)}
    if network != "locator":
        shapes = {"keypoints": (1, n, 2), "prior_keypoints": (1, n, 2), "score": (1,), "visibility": (1, n)}
        shapes["attributes"] = (1, len(spec.attributes))
    if network == "cascade":
        shapes |= dict.fromkeys(("stage1_keypoints", "stage1_prior_keypoints"), (1, n, 2))
        shapes["alignment"] = (1, 2, 3)
    out = backend.run(np.zeros((1, size, size, 3), np.uint8))
    for name, shape in shapes.items():
        seen = out[name].shape if name in out else None
        if (
            seen is None
            or len(seen) != len(shape)
            or any(b not in (a, None) for a, b in zip(seen, shape, strict=True))
        ):
            what = "nothing" if seen is None else f"the shape {seen}"
            raise ModelError(f"{path}: gives {what} for {name}, expected {shape}; {_ADVICE}")
        if not np.isfinite(out[name]).all():
            raise ModelError(f"{path}: gives values for {name} that are not finite; {_ADVICE}")
        low, high = float(out[name].min(initial=0)), float(out[name].max(initial=0))
        if name in ("score", "visibility", "attributes") and not (
            low >= -_ROUNDING and high <= 1 + _ROUNDING
        ):
            raise ModelError(f"{path}: gives {name} from {low:g} to {high:g}, expected 0 to 1; {_ADVICE}")
