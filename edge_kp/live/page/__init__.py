"""The live page: pictures, figures and a record button of a run, in a browser."""

from edge_kp.live.page.recording import Recorder, Recording
from edge_kp.live.page.sink import PageSink

__all__ = ["PageSink", "Recorder", "Recording"]
