"""One way to run an exported network, whatever computes it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType

from edge_kp.errors import BackendError
from edge_kp.modeldir import WEIGHTS
from edge_kp.types import Array


class Backend(ABC):
    """A loaded network: dict of arrays in, dict of arrays out.

    Safe to call from several threads: calls take turns, but those of ONNX Runtime, which share no buffers,
    run side by side. Only TensorRT through pycuda refuses threads other than the one that made it.

    Attributes:
        name: what computes, e.g. ``onnxruntime``.
        device: where, e.g. ``CPU``.
        precision: ``fp32``, ``fp16`` or ``int8``.
        batches: batch sizes with kernels of their own, which may err each; empty where all run alike.
        verified: was it held against PyTorch's results on this device, or is there no need to?
    """

    name: str
    device: str
    precision: str
    batches: tuple[int, ...] = ()
    verified: bool = True

    @abstractmethod
    def run(self, image: Array) -> dict[str, Array]:
        """uint8 BGR (B, S, S, 3) → float32 outputs by name.

        ``keypoints`` and ``prior_keypoints`` (B, N, 2) in crop coordinates, ``mixture`` (B, K), ``score``
        (B,), ``visibility`` (B, N) and ``attributes`` (B, A) as probabilities.

        Raises:
            BackendError: it is closed, or cannot run this.
        """

    def mark_verified(self) -> None:
        """Remember, beyond this process, that it gives PyTorch's results."""
        self.verified = True

    def close(self) -> None:  # noqa: B027 - a backend may hold nothing
        """Free what the network holds, after the call in progress; the backend cannot run again."""

    def __enter__(self) -> Backend:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def closed(what: object) -> BackendError:
    """The error to raise where a closed network is asked; ``what`` is its file, or the whole model."""
    return BackendError(f"{what} is closed and cannot run again; make a new Detector")


def check_weights(path: Path) -> None:
    """Is ``weights.bin`` there, if an ONNX file has its weights in it? Libraries say that in riddles.

    Raises:
        BackendError: it is not.
    """
    if path.is_file() and WEIGHTS.encode() in path.read_bytes() and not path.with_name(WEIGHTS).is_file():
        raise BackendError(
            f"{path}: its weights are in {WEIGHTS}, which is missing beside it; copy the whole model folder"
        )
