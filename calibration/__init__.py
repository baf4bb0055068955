"""Reports of calibrations, and ``python -m calibration``, which is ``python -m edge_kp.calibrate``."""
