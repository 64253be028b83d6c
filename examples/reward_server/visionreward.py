"""VisionReward as a reward: run in a checkout of github.com/THUDM/VisionReward, in that model's own environment.

It loads the model with `trust_remote_code`, as its authors do: that is why it lives behind HTTP and not in `vpo`.
"""

import importlib.util
import sys
import tempfile
from http.server import HTTPServer
from pathlib import Path

import imageio.v3 as imageio  # pip install "imageio[ffmpeg]"
import numpy
from server import Handler

spec = importlib.util.spec_from_file_location("visionreward", "inference-video.py")
model = importlib.util.module_from_spec(spec)
spec.loader.exec_module(model)


def judge(video: bytes, shape: list[int], prompt: str, fps: float) -> float:
    """The weighted mean of its checklist's answers, yes +1 and no -1; it reads a file."""
    frames = numpy.frombuffer(video, "u1").reshape(shape).transpose(0, 2, 3, 1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "video.mp4")
        imageio.imwrite(path, frames, fps=fps, macro_block_size=1)
        return model.score(str(path), prompt)


Handler.judge = staticmethod(judge)
Handler.about = {"name": "visionreward", "licence": "see its model card", "scale": "-1 to 1", "needs_prompt": True}
HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
