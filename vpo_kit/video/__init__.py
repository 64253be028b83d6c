"""Clips: read, written, looked through without decoding, and their times.

Video is float32 ``[..., F, 3, H, W]`` in [0, 1]. All that reads a video does it here.
"""

from vpo_kit.video.ffmpeg import version
from vpo_kit.video.reading import SUFFIXES, Footage, Window, read_video, read_window
from vpo_kit.video.scan import Extent, scan
from vpo_kit.video.tensors import check_finite, motion, straight_through_clamp
from vpo_kit.video.writing import write_video

__all__ = [
    "SUFFIXES",
    "Extent",
    "Footage",
    "Window",
    "check_finite",
    "motion",
    "read_video",
    "read_window",
    "scan",
    "straight_through_clamp",
    "version",
    "write_video",
]
