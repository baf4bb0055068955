"""edge_kp: a real-time keypoint detector with a shape prior."""

from edge_kp.detector import Detector
from edge_kp.errors import EdgeKpError
from edge_kp.schema import KeypointSchema
from edge_kp.tracker import Tracker
from edge_kp.types import Detection

__version__ = "0.1.0"
__all__ = ["Detection", "Detector", "EdgeKpError", "KeypointSchema", "Tracker"]
