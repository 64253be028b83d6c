"""Real clips: listed with their captions, looked through once, and cut into windows."""

from vpo_kit.clips.captions import captions, files
from vpo_kit.clips.folder import Clip, ClipFolder, cut_windows, named, read_folder
from vpo_kit.clips.index import IndexedFile, look_through
from vpo_kit.clips.rated import overall_of, ratings

__all__ = [
    "Clip",
    "ClipFolder",
    "IndexedFile",
    "captions",
    "cut_windows",
    "files",
    "look_through",
    "named",
    "overall_of",
    "ratings",
    "read_folder",
]
