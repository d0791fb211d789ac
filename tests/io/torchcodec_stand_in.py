"""A stand-in for torchcodec, which is not installed: the interface that is used, through PyAV."""

import sys
from types import ModuleType, SimpleNamespace

import av
import numpy as np
import torch


class VideoDecoder:
    """Frames by seconds on the container's clock; refuses what torchcodec refuses."""

    opened = []

    def __init__(self, path, *, device="cpu"):
        self.opened.append((path, device))
        frames, pts = [], []
        try:
            with av.open(path) as container:
                for frame in container.decode(video=0):
                    frames.append(torch.from_numpy(frame.to_ndarray(format="rgb24")))
                    pts.append(float(frame.pts * frame.time_base))
                    end = float((frame.pts + frame.duration) * frame.time_base)
        except av.error.FFmpegError as error:
            raise RuntimeError(f"Could not open {path}\nwith a second line") from error
        self._frames, self._pts = torch.stack(frames), np.array(pts)
        self.metadata = SimpleNamespace(begin_stream_seconds=pts[0], end_stream_seconds=end)

    def get_frames_played_at(self, seconds):
        seconds = np.asarray(seconds)
        begin, end = self.metadata.begin_stream_seconds, self.metadata.end_stream_seconds
        if (seconds < begin).any() or (seconds >= end).any():
            raise RuntimeError(f"frame pts must be in range [{begin}, {end}); got {seconds}")
        index = np.searchsorted(self._pts, seconds, side="right") - 1
        return SimpleNamespace(
            data=self._frames[index].permute(0, 3, 1, 2),
            pts_seconds=torch.from_numpy(self._pts[index]),
        )


def install(monkeypatch):
    """Make ``from torchcodec.decoders import VideoDecoder`` give the stand-in."""
    package, module = ModuleType("torchcodec"), ModuleType("torchcodec.decoders")
    module.VideoDecoder = VideoDecoder
    monkeypatch.setattr(VideoDecoder, "opened", [])
    monkeypatch.setitem(sys.modules, "torchcodec", package)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", module)
    return VideoDecoder
