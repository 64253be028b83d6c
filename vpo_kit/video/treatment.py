"""What has to be done to a file's pictures before they are what people see: one list for reading and for notices."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from fractions import Fraction

from vpo_kit.video.said import Look, VideoStream

HIGH_RANGE = {"smpte2084": "PQ", "arib-std-b67": "HLG"}
WHITE = 203
"""Nits of a white sheet of paper in HDR (ITU-R BT.2408); it becomes white, and what is brighter is pressed together."""
PEAK = 1000 / WHITE
SEPARATE_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""Decoders that take alpha beside the picture."""


@dataclass(frozen=True, kw_only=True)
class Treatment:
    """What is done; nothing by default."""

    deinterlaced: bool = False
    toned: Look | None = None
    """The colours of light of high range, where it is brought down to that of a screen."""
    squared: Fraction | None = None
    """Width over height of the pixels that are made square."""
    alpha: bool = False
    """Whether the alpha channel is looked at: transparent parts are shown on black."""
    decoder: str | None = None
    turned: bool = False
    """Whether the picture is turned, which ffmpeg itself does."""
    missing: tuple[str, ...] = ()
    """What should be done and cannot."""

    @property
    def chain(self) -> list[str]:
        """ffmpeg's filters, in order."""
        filters = ["bwdif=mode=send_frame:deint=interlaced"] if self.deinterlaced else []
        if self.toned is not None:
            filters += _tone_mapping(self.toned)
        if self.squared is not None:
            filters += ["scale=w='trunc(iw*max(1,sar)+0.5)':h='trunc(ih*max(1,1/sar)+0.5)'", "setsar=1"]
        return filters

    def same_run(self, other: Treatment) -> bool:
        """Whether ffmpeg does the same for both."""
        mine, its = ((t.chain, t.alpha, t.decoder) for t in (self, other))
        return mine == its

    @property
    def said(self) -> list[str]:
        """The treatment in words, for people. Alpha is not among them: whether anything is transparent is seen in the
        pixels.
        """
        words = ["rotated"] if self.turned else []
        if self.deinterlaced:
            words.append("deinterlaced")
        if self.toned is not None:
            words.append(f"tone-mapped from HDR ({HIGH_RANGE[self.toned.transfer]})")
        if self.squared is not None:
            words.append(f"its pixels of {self.squared.numerator}:{self.squared.denominator} made square")
        return [*words, *self.missing]


def needed(looks: Collection[Look], stream: VideoStream | None, has: Callable[[str], bool]) -> Treatment:
    """What frames that look so need, done with the filters and decoders that ffmpeg `has`."""
    missing = []
    deinterlaced = any(look.interlaced for look in looks)
    if deinterlaced and not has("bwdif"):
        missing.append("interlaced and left so: this ffmpeg has no bwdif")
        deinterlaced = False
    toned = next((look for look in looks if look.transfer in HIGH_RANGE), None)
    if toned is not None and not (has("zscale") and has("tonemap")):
        missing.append(f"HDR ({HIGH_RANGE[toned.transfer]}) without tone mapping, which this ffmpeg cannot do")
        toned = None
    decoder = SEPARATE_ALPHA.get(stream.codec) if stream is not None and stream.alpha_beside else None
    if decoder is not None and not has(decoder):
        missing.append(f"its transparency is not seen: this ffmpeg has no {decoder}")
        decoder = None
    return Treatment(
        deinterlaced=deinterlaced,
        toned=toned,
        squared=next((look.sar for look in looks if look.sar != 1), None),
        alpha=decoder is not None or any(look.alpha for look in looks),
        decoder=decoder,
        turned=stream is not None and stream.turned,
        missing=tuple(missing),
    )


def _tone_mapping(look: Look) -> list[str]:
    """The filters that go to linear light and a screen's primaries, down to its range, and to RGB; what is not said is
    BT.2020.
    """
    said = f"tin={look.transfer}"
    said += ":pin=bt2020" if look.primaries == "unknown" else ""
    said += ":min=bt2020nc" if look.matrix == "unknown" else ""
    return [
        f"zscale={said}:t=linear:p=bt709:npl={WHITE}",
        "format=gbrpf32le",
        f"tonemap=tonemap=mobius:param=0.8:desat=0:peak={PEAK:.3f}",
        "zscale=t=bt709:m=gbr:r=full",
        "format=gbrp",
    ]
