"""Real clips: listed with their captions, looked through once, and cut into windows."""

from vpo_kit.clips.captions import files, ratings
from vpo_kit.clips.folder import Clip, ClipFolder, read_folder
from vpo_kit.clips.index import Known, look_through

__all__ = ["Clip", "ClipFolder", "Known", "files", "look_through", "ratings", "read_folder"]
