"""A server with Triton's gRPC service: a repository in ONNX Runtime, and as strict as Triton."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime as ort
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

KINDS = {
    model_config_pb2.TYPE_UINT8: ("UINT8", np.uint8),
    model_config_pb2.TYPE_FP32: ("FP32", np.float32),
    model_config_pb2.TYPE_FP16: ("FP16", np.float16),
}


def read_config(model: Path) -> Any:
    """``config.pbtxt`` of a model, by Triton's own schema: an unknown or mistyped field is an error."""
    text = (model / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def onnx_of(model: Path) -> Path:
    """Where Triton looks for the network: a file, or a folder where it consists of several."""
    path = model / "1" / "model.onnx"
    return path / "model.onnx" if path.is_dir() else path


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """
    Attributes:
        batches: name of the model and size of each batch it was sent.
        broken: answer no inference any more.
    """

    def __init__(self, repository: Path) -> None:
        self.models = {model.name: self._load(model) for model in sorted(repository.iterdir())}
        self.batches: list[tuple[str, int]] = []
        self.broken = False

    def _load(self, model: Path) -> tuple[Any, ort.InferenceSession]:
        config = read_config(model)
        assert config.name == model.name, "Triton refuses a config of another name"
        assert config.backend == "onnxruntime"
        return config, ort.InferenceSession(onnx_of(model), providers=["CPUExecutionProvider"])

    def _model(self, name: str, context: Any) -> tuple[Any, ort.InferenceSession]:
        if name not in self.models:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{name}' is not found")
        return self.models[name]

    def RepositoryIndex(self, request: Any, context: Any) -> Any:
        answer = service_pb2.RepositoryIndexResponse()
        for name in self.models:
            answer.models.add(name=name, version="1", state="READY")
        return answer

    def ModelConfig(self, request: Any, context: Any) -> Any:
        return service_pb2.ModelConfigResponse(config=self._model(request.name, context)[0])

    def ModelInfer(self, request: Any, context: Any) -> Any:
        config, session = self._model(request.model_name, context)
        if self.broken:
            context.abort(grpc.StatusCode.INTERNAL, "no memory\nleft")
        (sent,), (wanted,) = request.inputs, config.input
        kind, numbers = KINDS[wanted.data_type]
        batch = sent.shape[0]
        if batch > config.max_batch_size:
            text = f"batch-size must be <= {config.max_batch_size} for '{config.name}'"
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
        if (sent.name, sent.datatype, list(sent.shape[1:])) != (wanted.name, kind, list(wanted.dims)):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"unexpected input {sent}")
        self.batches.append((config.name, batch))
        image = np.frombuffer(request.raw_input_contents[0], numbers).reshape(sent.shape)
        names = [output.name for output in config.output]
        answer = service_pb2.ModelInferResponse(model_name=config.name, model_version="1")
        for output, value in zip(config.output, session.run(names, {sent.name: image}), strict=True):
            kind, numbers = KINDS[output.data_type]
            produced = output.reshape.shape if output.HasField("reshape") else output.dims
            assert (value.dtype, value.shape) == (numbers, (batch, *produced)), output.name
            answer.outputs.add(name=output.name, datatype=kind, shape=[batch, *output.dims])
            answer.raw_output_contents.append(value.tobytes())
        return answer


@contextmanager
def serving(repository: Path) -> Iterator[tuple[str, FakeTriton]]:
    """Address of a server over a repository, and the server."""
    fake = FakeTriton(repository)
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(ThreadPoolExecutor(2), options=unlimited)
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(fake, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", fake
    finally:
        server.stop(None).wait()
