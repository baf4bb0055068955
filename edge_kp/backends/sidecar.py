"""What an engine is, in a file beside it, and whether that engine can be run here.

``trt`` is always the module that :func:`edge_kp.backends.tensorrt.load_tensorrt` gives.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_kp.backends.cuda import Gpu
from edge_kp.errors import BackendError
from edge_kp.files import parse_json
from edge_kp.modeldir import file_digest, network_digest

FORMAT = 1
BATCHES = (1, 4)
SERVED_BATCH = 8  # the largest that a server's engine is built for, where nothing else is said
LONGEST = 200  # letters of a text in a sidecar
_TEXTS = ("library", "version", "gpu", "compute_capability", "precision", "onnx_sha256", "engine_sha256")


@dataclass(frozen=True)
class EngineInfo:
    """The sidecar ``NAME.engine.json``: what an engine was built from, with what, and for what.

    Attributes:
        library: ``tensorrt`` or ``tensorrt_rtx``.
        version: of that library.
        gpu: name of the GPU; None where it was built for any of that compute capability.
        compute_capability: e.g. ``8.7``.
        precision: ``fp32``, ``fp16`` or ``int8``: that of the ONNX file.
        onnx_sha256, engine_sha256: of both files.
        batches: the batch sizes it runs, smallest first; the position is the number of the profile.
        flags: how it was built.
        layers: batch size → layers after fusion, about as many as kernels are launched.
        seconds: that the build took.
        date: of the build, ISO 8601, UTC.
        verified: was the engine held against PyTorch's results, and within tolerance?
    """

    library: str
    version: str
    gpu: str | None
    compute_capability: str
    precision: str
    onnx_sha256: str
    engine_sha256: str
    batches: tuple[int, ...]
    flags: Mapping[str, Any]
    layers: Mapping[str, int]
    seconds: float
    date: str
    verified: bool = False
    format: int = FORMAT

    @classmethod
    def read(cls, engine: Path) -> EngineInfo:
        """The sidecar of an engine.

        Raises:
            ValueError: it is missing, damaged or of another format.
        """
        path = sidecar(engine)
        try:
            data = parse_json(path.read_text(encoding="utf-8"))
            if data["format"] == FORMAT:
                info = cls(**{**data, "batches": tuple(data["batches"])})
                info._check()
                return info
        except OSError as error:
            raise ValueError(f"no {path.name} beside it ({error.strerror})") from error
        except (ValueError, KeyError, TypeError) as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise ValueError(f"{path.name} is damaged ({reason})") from error
        found = " ".join(str(data["format"]).split())[:20]
        raise ValueError(f"{path.name} has format {found}, this version reads {FORMAT}")

    def _check(self) -> None:
        """Raises: ValueError: a text that cannot be shown on a line, batch sizes or tables that are none."""
        for name in _TEXTS:
            text = getattr(self, name)
            known = text is not None or name != "gpu"
            if known and not (isinstance(text, str) and text.isprintable() and len(text) <= LONGEST):
                raise ValueError(f"{name}: expected a short text")
        whole = all(type(size) is int and size > 0 for size in self.batches)
        if not self.batches or not whole or list(self.batches) != sorted(set(self.batches)):
            raise ValueError("batches: expected different whole numbers from 1 up, smallest first")
        if not isinstance(self.verified, bool):
            raise ValueError("verified: expected true or false")
        for name in ("flags", "layers"):
            if not isinstance(getattr(self, name), dict):
                raise ValueError(f"{name}: expected names with a value each")

    def write(self, path: Path) -> None:
        """Write the sidecar to ``path``."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def sidecar(engine: Path) -> Path:
    """``stage1.fp16.engine`` → ``stage1.fp16.engine.json``."""
    return engine.with_name(f"{engine.name}.json")


def beside(onnx: Path) -> Path:
    """``stage1.fp16.onnx`` → ``stage1.fp16.engine``, where an engine is looked for first."""
    return onnx.with_suffix(".engine")


def library_name(trt: Any) -> str:
    """``tensorrt`` or ``tensorrt_rtx``."""
    return "tensorrt_rtx" if trt.__name__.startswith("tensorrt_rtx") else "tensorrt"


def check_engine(trt: Any, engine: Path, onnx: Path, precision: str, gpu: Gpu) -> EngineInfo:
    """The engine's sidecar, if the engine can be run here in place of the ONNX file.

    Raises:
        BackendError: it cannot; the message ends with the command that builds it anew.
    """

    def differences(info: EngineInfo) -> Iterator[str]:
        yield from _other_machine(info, trt, gpu)
        yield from _other_files(info, engine, onnx, precision)

    info, wrong = _examine(engine, differences)
    if info is None or wrong:
        raise _refusal(wrong, engine, onnx, precision, info.batches if info else BATCHES)
    return info


def check_served(engine: Path, onnx: Path, precision: str) -> EngineInfo:
    """The engine's sidecar, if a server whose batches have any size can run the engine for the ONNX file.

    Whether TensorRT and GPU are the server's is not asked: this machine need not be the server.

    Raises:
        BackendError: it cannot; the message ends with the command that builds it anew.
    """

    def differences(info: EngineInfo) -> Iterator[str]:
        if info.library != "tensorrt":
            yield f"built with {info.library}, a server needs TensorRT's own"
        if info.batches != every_batch(max(info.batches)):
            sizes = ", ".join(map(str, info.batches))
            yield f"runs batches of {sizes} alone, a server makes batches of any size"
        yield from _other_files(info, engine, onnx, precision)

    info, wrong = _examine(engine, differences)
    if info is None or wrong:
        most = max(info.batches) if info else SERVED_BATCH
        raise _refusal(wrong, engine, onnx, precision, every_batch(most))
    return info


def every_batch(most: int) -> tuple[int, ...]:
    """1, 2, … up to ``most``."""
    return tuple(range(1, most + 1))


def _examine(
    engine: Path, differences: Callable[[EngineInfo], Iterator[str]]
) -> tuple[EngineInfo | None, list[str]]:
    """The sidecar, None where it cannot be read, and what is wrong with the engine."""
    info = None
    try:
        info = EngineInfo.read(engine)
        return info, list(differences(info))
    except ValueError as error:
        return info, [str(error)]
    except OSError as error:
        return info, [f"{error.filename} cannot be read ({error.strerror})"]


def _refusal(
    wrong: Sequence[str], engine: Path, onnx: Path, precision: str, batches: Sequence[int]
) -> BackendError:
    command = build_command(engine, onnx, precision, batches)
    return BackendError(f"{engine}: {'; '.join(wrong)}; build it again: {command}")


def _other_machine(info: EngineInfo, trt: Any, gpu: Gpu) -> Iterator[str]:
    have, here = f"{info.library} {info.version}", f"{library_name(trt)} {trt.__version__}"
    if have != here:
        yield f"built with {have}, this is {here}"
    target = Gpu(info.gpu, info.compute_capability)
    if target not in (gpu, Gpu(None, gpu.compute_capability)):
        yield f"built for {target}, this is {gpu}"


def _other_files(info: EngineInfo, engine: Path, onnx: Path, precision: str) -> Iterator[str]:
    if info.precision != precision:
        yield f"built in {info.precision}, asked for {precision}"
    if info.onnx_sha256 != network_digest(onnx):
        yield f"built from another {onnx.name}"
    if info.engine_sha256 != file_digest(engine):
        yield "not the file that its sidecar describes: cut off, changed or half replaced"


def build_command(engine: Path, onnx: Path, precision: str, batches: Sequence[int]) -> str:
    """The command line that builds the engine: with all others of its model, where it lies beside them."""
    if (onnx.parent / "model.json").is_file() and engine == beside(onnx):
        what = ["--model", str(onnx.parent)]
    else:
        what = ["--onnx", str(onnx), "--engine", str(engine)]
    settings = ["--precision", precision, "--batch", *map(str, batches)]
    return shlex.join(["python", "-m", "edge_kp.build_engine", *what, *settings])
