"""edge_kp: a real-time keypoint detector with a shape prior.

```python
import cv2
from edge_kp import Detector, Tracker

with Detector("face68") as detector:
    faces = detector.detect(cv2.imread("photo.jpg"))  # a picture
    tracker = Tracker(detector)  # video: ids that stay, steadied keypoints
    faces = tracker.update(frame)
```

Images are uint8, BGR, (H, W, 3). Keypoints and boxes are in pixels of the frame, pixel (0, 0) having its
centre at (0, 0). Whatever is wrong with a model, a source or an output is an `EdgeKpError` of one line; a
wrong argument is a `ValueError`.

Public are the names below and these modules; what they say here holds within 0.1. All others, training among
them, are behind the commands (`edge-kp --help`) and may change.

- `edge_kp.types`: what a detection is
- `edge_kp.schema`: what the keypoints of an object are
- `edge_kp.errors`: what can go wrong
- `edge_kp.geometry`: transforms, boxes and crops
- `edge_kp.metrics`: NME and its aggregates, ROC, precision and recall of boxes
- `edge_kp.pose`: head pose from keypoints
- `edge_kp.smoothing`: steady keypoints
- `edge_kp.overlay`: detections drawn onto a picture
- `edge_kp.templates`: the bank of the shape prior
- `edge_kp.modeldir`: model folders
- `edge_kp.look_rules`: when an object is looked at again, and turned
- `edge_kp.parity`: networks held against their stored results
- `edge_kp.backends`: what runs the networks
- `edge_kp.backends.base`: what a backend is
- `edge_kp.each_frame`: objects of photos, each on its own
- `edge_kp.tracker`: objects over the frames of a video
- `edge_kp.live.source`: cameras, clips, pictures and streams as sources
- `edge_kp.live.frames`: what a source is
- `edge_kp.live.parts`: what the loop joins: workers, outputs, the preview
- `edge_kp.live.pipeline`: the running loop
- `edge_kp.live.following`: the loop's worker, a tracker for each source
- `edge_kp.live.statistics`: results, counts and times of a run
- `edge_kp.live.preview`: windows
- `edge_kp.live.sinks`: videos and pictures
- `edge_kp.live.lines`: JSON lines
- `edge_kp.live.csv_sink`: tables
- `edge_kp.live.udp`: UDP datagrams
- `edge_kp.live.mqtt`: MQTT
- `edge_kp.live.page`: the live page
"""

from edge_kp.detector import Detector
from edge_kp.errors import EdgeKpError
from edge_kp.schema import KeypointSchema
from edge_kp.tracker import Tracker
from edge_kp.types import Detection

__version__ = "0.1.0"
__all__ = ["Detection", "Detector", "EdgeKpError", "KeypointSchema", "Tracker"]
