import importlib
import os
import re
import struct
import subprocess
import sys
from unittest import mock

import av
import cv2
import numpy as np
import pytest
import torchcodec_stand_in
from hypothesis import given, settings
from hypothesis import strategies as st

from brainnrds.io import InputError, iter_clips, probe_video, read_clip, write_clip
from brainnrds.io import video as video_module
from brainnrds.io.video import iter_frames


def numbered(n_frames, height=32, width=48):
    """Frames whose number can be read off: gray levels that survive compression."""
    levels = np.arange(n_frames) / n_frames
    return np.broadcast_to(levels[:, None, None, None], (n_frames, 3, height, width))


def numbers(clip, n_frames):
    return np.round(np.asarray(clip)[:, :, 4:-4, 4:-4].mean(axis=(1, 2, 3)) * n_frames).astype(int)


def encode(
    path,
    images,
    pts,
    *,
    time_base=(1, 1000),
    codec="libx264",
    rate=10,
    key_frame_every=12,
    **options,
):
    """Write uint8 (n, height, width, 3) with given timestamps in ticks."""
    from fractions import Fraction

    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = images.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(*time_base)
        if codec == "libx264":
            stream.options = {"crf": "5", "g": str(key_frame_every)}
        for image, tick in zip(images, pts, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = tick, Fraction(*time_base)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def add_film(container, codec, rate, images):
    """Encode images at a steady rate as a stream of an open container."""
    stream = container.add_stream(codec, rate=rate)
    stream.height, stream.width = images.shape[1:3]
    stream.pix_fmt = "yuv420p"
    for image in images:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def as_images(frames):
    return np.round(np.asarray(frames) * 255).astype(np.uint8).transpose(0, 2, 3, 1)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """40 frames at 10 Hz."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    return write_clip(path, numbered(40), fps=10)


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
@pytest.mark.parametrize("size", [(32, 48), (33, 47)])
def test_write_and_read_again(tmp_path, suffix, size):
    clip = numbered(10, *size)
    path = write_clip(tmp_path / f"clip{suffix}", clip, fps=12.5)
    video = probe_video(path)
    assert video.n_frames == 10
    assert not video.variable_rate
    assert video.duration == pytest.approx(0.8, abs=0.011)
    assert video.fps == pytest.approx(12.5, rel=0.02)
    read = read_clip(path)
    padded = suffix == ".mp4"
    assert read.shape[2:] == tuple(n + n % 2 if padded else n for n in size)
    assert np.abs(read[:, :, : size[0], : size[1]] - clip).max() < 0.02
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_clips_show_the_frame_on_screen(film):
    clips = list(iter_clips(film, [0.0, 1.0, 1.55, 3.0], 0.5, fps=10))
    assert [numbers(clip, 40).tolist() for clip in clips] == [
        [0, 1, 2, 3, 4],
        [10, 11, 12, 13, 14],
        [15, 16, 17, 18, 19],
        [30, 31, 32, 33, 34],
    ]
    assert clips[0].dtype == np.float32


def test_clips_overlap_and_change_the_rate(film):
    clips = list(iter_clips(film, [0.0, 0.2, 0.4], 1.0, fps=5))
    assert [numbers(clip, 40).tolist() for clip in clips] == [
        [0, 2, 4, 6, 8],
        [2, 4, 6, 8, 10],
        [4, 6, 8, 10, 12],
    ]
    [twice] = iter_clips(film, [0.0], 0.4, fps=20)
    assert numbers(twice, 40).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_last_frame_stays_but_no_clip_begins_after_the_end(film):
    [clip] = iter_clips(film, [3.8], 0.5, fps=10)
    assert numbers(clip, 40).tolist() == [38, 39, 39, 39, 39]
    with pytest.raises(InputError, match=r"lasts 4\.00 s; a clip at 4\.20 s"):
        list(iter_clips(film, [3.0, 4.2], 0.5, fps=10))


@pytest.mark.parametrize("times", [[-1.0], [1.0, 0.5], [np.nan], [[0.0]]])
def test_bad_times(film, times):
    with pytest.raises(ValueError, match="`times` must"):
        list(iter_clips(film, times, 0.5, fps=10))


def test_sizes(film):
    [clip] = iter_clips(film, [0.0], 0.2, fps=10, size=16)
    assert clip.shape == (2, 3, 16, 24)
    assert clip.flags.c_contiguous  # networks take the order of memory for a choice of kernel
    assert read_clip(film, duration=0.2, size=(20, 30)).shape == (2, 3, 20, 30)


def test_read_a_part(film):
    assert numbers(read_clip(film, start=1.0, duration=0.3), 40).tolist() == [10, 11, 12]
    assert numbers(read_clip(film, start=3.7), 40).tolist() == [37, 38, 39]
    assert numbers(read_clip(film, start=3.0, fps=5), 40).tolist() == [30, 32, 34, 36, 38]
    with pytest.raises(InputError, match="lasts"):
        read_clip(film, start=9.0)


def test_variable_frame_rate(tmp_path):
    # one frame stays on screen for 3 s, then two a second
    pts = [0, 100, 200, 3200, 3700, 4200]
    path = encode(tmp_path / "vfr.mkv", as_images(numbered(6)), pts)
    [clip] = iter_clips(path, [0.0], 4.2, fps=10)
    expected = [0, 1] + [2] * 30 + [3] * 5 + [4] * 5
    assert probe_video(path).variable_rate
    assert numbers(clip, 6).tolist() == expected
    # nearest in time would be wrong at 3.1 s: frame 3 is not on screen yet
    [late] = iter_clips(path, [3.1], 0.1, fps=10)
    assert numbers(late, 6).tolist() == [2]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_seeking_gives_the_same_frames(tmp_path, suffix):
    n_frames = 200
    images = as_images(numbered(n_frames, 16, 16))
    codec = "mpeg4" if suffix == ".avi" else "libx264"
    kwargs = {"time_base": (1, 10)} if suffix == ".avi" else {}
    pts = np.arange(n_frames) * (1 if suffix == ".avi" else 100)
    path = encode(tmp_path / f"film{suffix}", images, pts.tolist(), codec=codec, **kwargs)
    straight = list(iter_clips(path, [0.0, 15.3], 0.5, fps=10))[1]
    [sought] = iter_clips(path, [15.3], 0.5, fps=10)
    np.testing.assert_array_equal(sought, straight)


@pytest.fixture
def decoded(monkeypatch):
    """A list that grows by one with every frame that is decoded."""
    frames, timed = [], video_module._timed

    def counted(*arguments):
        for frame in timed(*arguments):
            frames.append(frame)
            yield frame

    monkeypatch.setattr(video_module, "_timed", counted)
    return frames


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("read", ["frames", "clips"])
def test_a_film_with_one_key_frame_is_decoded_once(tmp_path, decoded, read, step):
    """As one process reads it chunk by chunk, or every second chunk where two share the film."""
    n_frames = 400  # 40 s
    path = tmp_path / "film.mp4"
    encode(path, as_images(numbered(n_frames)), np.arange(n_frames) * 100, key_frame_every=10_000)
    chunks = [np.arange(t, t + 2, 0.1) for t in range(0, 40, 2)][::step]
    for times in chunks:
        if read == "frames":
            images = np.stack(list(iter_frames(path, times + 0.05)))
            found = numbers(images.transpose(0, 3, 1, 2) / 255, n_frames)
        else:
            [clip] = iter_clips(path, times[:1], 2.0, fps=10)
            found = numbers(clip, n_frames)
        np.testing.assert_allclose(found, np.round(times * 10), atol=3)  # 256 grey levels
    # to look whether a key frame lies nearer takes a few frames for each chunk
    assert len(decoded) <= n_frames + 5 * len(chunks)


def test_key_frames_are_sought_where_they_are_nearer(tmp_path, decoded):
    path = tmp_path / "film.mp4"
    encode(path, as_images(numbered(400)), np.arange(400) * 100, key_frame_every=10)
    for time in (0.05, 30.05, 15.05, 38.05):
        [image] = iter_frames(path, [time])
        [number] = numbers(image.transpose(2, 0, 1)[None] / 255, 400)
        assert abs(number - int(time * 10)) <= 3
    assert len(decoded) < 4 * 25


def test_a_film_that_was_replaced_is_read_anew(tmp_path):
    path = tmp_path / "film.mp4"
    for order in (slice(None), slice(None, None, -1)):
        write_clip(path, numbered(40)[order], fps=10)
        for time in (0.0, 1.0):  # the film is left open in between
            [image] = iter_frames(path, [time])
            expected = np.arange(40)[order][round(time * 10)]
            assert abs(numbers(image.transpose(2, 0, 1)[None] / 255, 40)[0] - expected) <= 1


def test_a_film_that_is_open_at_the_end_of_python_says_nothing(film):
    code = "import sys; from brainnrds.io import iter_clips; " + (
        "next(iter_clips(sys.argv[1], [0.0], 1.0, fps=10)); "
        "list(iter_clips(sys.argv[1], [0.0], 1.0, fps=10))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(film)], capture_output=True, check=True)
    assert done.stderr == b""


def test_a_fork_leaves_its_parents_film_alone(film):
    next(iter_clips(film, [0.0], 1.0, fps=10))
    pid = os.fork()
    if not pid:
        clip = next(iter_clips(film, [2.0], 1.0, fps=10))
        os._exit(int(abs(numbers(clip, 40) - np.arange(20, 30)).max() > 1))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    [clip] = iter_clips(film, [2.0], 1.0, fps=10)
    np.testing.assert_allclose(numbers(clip, 40), np.arange(20, 30), atol=1)


def test_timestamps_that_begin_late_count_from_the_first_frame(tmp_path):
    path = encode(tmp_path / "late.mkv", as_images(numbered(10)), range(5000, 6000, 100))
    assert probe_video(path).duration == pytest.approx(1.0, abs=0.02)
    [clip] = iter_clips(path, [0.3], 0.2, fps=10)
    assert numbers(clip, 10).tolist() == [3, 4]


def test_missing_timestamps(tmp_path):
    path = encode(tmp_path / "raw.h264", as_images(numbered(20)), range(0, 2000, 100))
    assert numbers(read_clip(path), 20).tolist() == list(range(20))
    assert probe_video(path).n_frames == 20


@pytest.mark.parametrize(("degrees", "turns"), [(90, 1), (180, 2), (270, 3)])
def test_rotation_flag(tmp_path, degrees, turns):
    clip = np.zeros((4, 3, 32, 48))
    clip[:, :, :16, :24] = 1
    path = write_clip(tmp_path / "film.mp4", clip, fps=10)
    # the display matrix of the track header (ISO 14496-12), 16.16 fixed point, clockwise
    matrices = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}
    a, b, c, d = (n * 65536 for n in matrices[degrees])
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    expected = np.rot90(clip, k=-turns, axes=(2, 3))
    read = read_clip(path)
    assert read.shape == expected.shape
    assert np.abs(read - expected).mean() < 0.02
    video = probe_video(path)
    assert (video.height, video.width) == expected.shape[2:]
    # other angles have no pixel grid
    content[at : at + 36] = struct.pack(">9i", 46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    with pytest.raises(InputError, match="multiple of 90"):
        probe_video(path)


def test_one_frame(tmp_path):
    path = write_clip(tmp_path / "one.mp4", numbered(1), fps=10)
    assert probe_video(path).n_frames == 1
    [clip] = iter_clips(path, [0.0], 1.0, fps=4)
    assert clip.shape[0] == 4


def test_missing_and_unreadable(tmp_path):
    with pytest.raises(InputError, match=r"Film not found: .*none\.mp4"):
        probe_video(tmp_path / "none.mp4")
    text = tmp_path / "text.mp4"
    text.write_text("no film")
    with pytest.raises(InputError, match=r"text\.mp4 cannot be decoded"):
        list(iter_clips(text, [0.0], 1.0, fps=10))
    sound = tmp_path / "sound.wav"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(InputError, match="must hold a video stream"):
        probe_video(sound)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".mov"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_truncated(tmp_path, suffix, share):
    random = np.random.default_rng(0)
    images = random.integers(0, 255, (150, 24, 32, 3)).astype(np.uint8)
    codec = "mpeg4" if suffix == ".avi" else "libx264"
    options = {"movflags": "faststart"} if suffix in (".mp4", ".mov") else {}
    pts = np.arange(150) if suffix == ".avi" else np.arange(150) * 100
    time_base = (1, 10) if suffix == ".avi" else (1, 1000)
    path = encode(
        tmp_path / f"film{suffix}",
        images,
        pts.tolist(),
        codec=codec,
        time_base=time_base,
        **options,
    )
    assert probe_video(path).n_frames == 150
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=re.escape(str(path))) as error:
        probe_video(path)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError):
        list(iter_clips(path, np.arange(15), 1.0, fps=10))


def test_write_refuses(tmp_path):
    with pytest.raises(ValueError, match=r"\(n_frames, 3, height, width\)"):
        write_clip(tmp_path / "a.mp4", np.zeros((3, 8, 8)), fps=10)
    with pytest.raises(ValueError, match=r"\.mp4 or \.gif"):
        write_clip(tmp_path / "a.avi", numbered(2), fps=10)
    with pytest.raises(ValueError, match="divide"):
        write_clip(tmp_path / "a.mp4", numbered(2) * 255, fps=10)
    assert not list(tmp_path.iterdir())


def test_memory_does_not_grow_with_the_film(tmp_path):
    import tracemalloc

    def peak(n_frames):
        path = tmp_path / f"{n_frames}.mp4"
        write_clip(path, numbered(n_frames, 64, 64), fps=10)
        tracemalloc.start()
        for _ in iter_clips(path, np.arange(0, n_frames / 10 - 1, 1.0), 1.0, fps=10):
            pass
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(600) < 1.3 * peak(100)


@pytest.fixture
def torchcodec(monkeypatch):
    video_module._open_by_torchcodec.cache_clear()
    yield torchcodec_stand_in.install(monkeypatch)
    video_module._open_by_torchcodec.cache_clear()


@pytest.mark.parametrize("case", ["constant", "variable", "late"])
def test_torchcodec_gives_the_frames_of_pyav(tmp_path, film, case, torchcodec):
    pts = {"variable": [0, 100, 200, 3200, 3700, 4200], "late": range(5000, 6000, 100)}
    path = film
    if case in pts:
        path = encode(tmp_path / "film.mkv", as_images(numbered(len(pts[case]))), pts[case])
    # on the frames' onsets, between them, and past the end: more than are decoded at once
    times = np.linspace(0, 1.1 * probe_video(path).duration, 89)
    expected = list(iter_frames(path, times))
    found = list(iter_frames(path, times, decoder="torchcodec"))
    assert len(torchcodec.opened) == 1
    np.testing.assert_array_equal(found, expected)
    # a frame that stays is the same object: it is prepared once
    assert len({id(image) for image in found}) == len({id(image) for image in expected})


def test_installed_torchcodec_gives_the_frames_of_pyav(tmp_path, film):
    try:
        importlib.import_module("torchcodec.decoders")
    except (ImportError, OSError, RuntimeError):
        pytest.skip("torchcodec is not installed, or without FFmpeg")
    video_module._open_by_torchcodec.cache_clear()
    variable = encode(tmp_path / "film.mkv", as_images(numbered(4)), [5000, 5100, 7200, 7300])
    for path in (film, variable):
        times = np.linspace(0, 1.1 * probe_video(path).duration, 89)
        expected = np.stack(list(iter_frames(path, times))).astype(int)
        found = np.stack(list(iter_frames(path, times, decoder="torchcodec"))).astype(int)
        assert np.abs(found - expected).max() <= 3  # levels of 256: conversions round differently


def test_torchcodec_is_not_asked_for_rotated_films(tmp_path, torchcodec):
    path = write_clip(tmp_path / "film.mp4", numbered(4), fps=10)
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    matrix = (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)
    content[at : at + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(content)
    [image] = iter_frames(path, [0.0], decoder="torchcodec")
    assert image.shape == (48, 32, 3) and not torchcodec.opened


def test_torchcodec_fails_in_one_line(tmp_path, film, torchcodec, monkeypatch):
    def fail(self, seconds):
        raise RuntimeError("cannot decode\nat all")

    monkeypatch.setattr(torchcodec, "get_frames_played_at", fail)
    with pytest.raises(InputError, match="decoded by torchcodec: cannot decode$"):
        list(iter_frames(film, [0.0], decoder="torchcodec"))
    with pytest.raises(InputError, match="Film not found"):
        list(iter_frames(tmp_path / "none.mp4", [0.0], decoder="torchcodec"))
    with pytest.raises(ValueError, match="`decoder` must be"):
        list(iter_frames(film, [0.0], decoder="nvdec"))


def test_torchcodec_that_is_not_installed(film, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    video_module._open_by_torchcodec.cache_clear()
    with pytest.raises(ImportError, match="pip install torchcodec"):
        list(iter_frames(film, [0.0], decoder="torchcodec"))


@pytest.mark.parametrize("value, expected", [("3", 3), ("", 0), ("4,2", 0)])
def test_decoding_takes_the_threads_that_workers_are_left(value, expected, monkeypatch, tmp_path):
    path = tmp_path / "film.mp4"
    write_clip(path, np.zeros((4, 3, 32, 32), dtype=np.float32), fps=8)
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    with video_module._open(path) as (_, stream, _):
        assert stream.codec_context.thread_count == expected


def with_cover(film, target):
    """Copy a film and put a picture before it, as tagging programs do."""

    def atom(name, content):
        return struct.pack(">I", 8 + len(content)) + name + content

    with av.open(str(film)) as source, av.open(str(target), "w", format="mp4") as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    ok, picture = cv2.imencode(".jpg", np.full((64, 64, 3), 90, np.uint8))
    assert ok
    cover = atom(b"covr", atom(b"data", struct.pack(">II", 13, 0) + picture.tobytes()))
    handler = atom(b"hdlr", bytes(8) + b"mdirappl" + bytes(9))
    tags = atom(b"udta", atom(b"meta", bytes(4) + handler + atom(b"ilst", cover)))
    content = target.read_bytes()
    start = content.index(b"moov") - 4
    (size,) = struct.unpack(">I", content[start : start + 4])
    whole = struct.pack(">I", size + len(tags)) + b"moov" + tags + content[start + 8 :]
    target.write_bytes(content[:start] + whole)
    return target


def test_a_cover_picture_is_not_the_film(film, tmp_path):
    covered = with_cover(film, tmp_path / "covered.mp4")
    with av.open(str(covered)) as container:
        assert len(container.streams.video) == 2  # else nothing is tested
        assert container.streams.video[0].height == 64
    assert probe_video(covered).duration == pytest.approx(probe_video(film).duration)
    np.testing.assert_array_equal(read_clip(covered), read_clip(film))


def test_a_fifo_is_refused_before_it_is_opened(tmp_path):
    os.mkfifo(tmp_path / "film.mp4")  # to open it would wait for ever
    with pytest.raises(InputError, match="must be a file; got a FIFO"):
        probe_video(tmp_path / "film.mp4")


@pytest.fixture(scope="module")
def matroska(tmp_path_factory):
    """20 frames at 10 Hz; its duration is text in a tag."""
    path = tmp_path_factory.mktemp("mkv") / "film.mkv"
    return encode(path, as_images(numbered(20)), range(0, 2000, 100))


@pytest.mark.parametrize(
    "tag",
    [
        "xx:yy:zz.000000000",
        "0000002.0000000000",
        "00:00:nan000000000",
        "-1:00:00.000000000",
        "0" * 18,
    ],
)
def test_a_duration_tag_that_is_none_promises_nothing(matroska, tmp_path, tag):
    content = matroska.read_bytes()
    whole = b"00:00:02.000000000"
    assert content.count(whole) == 1 and len(tag) == len(whole)
    path = tmp_path / "film.mkv"
    path.write_bytes(content.replace(whole, tag.encode()))
    assert probe_video(path).duration == pytest.approx(2.0)
    np.testing.assert_array_equal(read_clip(path), read_clip(matroska))


def test_a_duration_tag_that_says_more_is_a_truncated_film(matroska, tmp_path):
    content = matroska.read_bytes()
    path = tmp_path / "film.mkv"
    path.write_bytes(content.replace(b"00:00:02.000000000", b"00:01:02.000000000"))
    with pytest.raises(InputError, match=r"truncated: its header says 62\.00 s"):
        probe_video(path)


def test_titles_may_be_in_any_encoding(tmp_path):
    with av.open(str(tmp_path / "film.mkv"), "w") as container:
        container.metadata["title"] = "cafes"
        add_film(container, "libx264", 10, as_images(numbered(5)))
    content = (tmp_path / "film.mkv").read_bytes()
    assert b"cafes" in content
    (tmp_path / "film.mkv").write_bytes(content.replace(b"cafes", b"caf\xe9s"))
    assert len(read_clip(tmp_path / "film.mkv")) == 5


def test_a_codec_that_nobody_knows_is_refused(film, tmp_path):
    content = film.read_bytes()
    at = content.index(b"stsd")
    path = tmp_path / "film.mp4"
    path.write_bytes(content[:at] + content[at:].replace(b"avc1", b"zzzz", 1))
    for read in (probe_video, read_clip, lambda path: next(iter_frames(path, [0.0]))):
        with pytest.raises(InputError, match="must be of a known video codec"):
            read(path)


def test_the_same_clip_is_the_same_bytes(tmp_path):
    """Where memory was used before, too: x264's look-ahead reads what it has not written."""
    random = np.random.default_rng(0)
    clip = np.ones((3, 3, 118, 108))
    clip[:, :, 20:60, 10:50] = random.random((3, 3, 40, 40)).cumsum(axis=3) / 40
    written = set()
    for n in range(40):
        used = [np.full(random.integers(1000, 60000), n, dtype=np.uint8) for _ in range(40)]
        del used[::2]
        written.add(write_clip(tmp_path / "a.mp4", clip, fps=1.5).read_bytes())
    assert len(written) == 1


def test_frames_of_changing_size_are_refused(tmp_path):
    """Streams of MPEG may be joined as they are; a clip has one size."""
    path = tmp_path / "film.mpg"
    parts = []
    for side in (32, 48):
        with av.open(str(path), "w") as container:
            add_film(container, "mpeg1video", 25, as_images(numbered(10, side, side)))
        parts.append(path.read_bytes())
    path.write_bytes(b"".join(parts))
    with pytest.raises(InputError, match="one size|ascending timestamps|truncated"):
        read_clip(path)


@pytest.mark.parametrize("place", [0.3, 0.9])
def test_a_stream_that_begins_later_is_left_alone(tmp_path, place):
    path = tmp_path / "film.ts"
    with av.open(str(path), "w") as container:
        add_film(container, "mpeg1video", 25, as_images(numbered(30)))
    before = probe_video(path), read_clip(path)
    content = path.read_bytes()
    packets = [content[i : i + 188] for i in range(0, len(content), 188)]
    # the beginning of a picture, under the number of a stream that nothing announced
    begins = [packet for packet in packets if packet[1] & 0x40 and packet[1:3] != b"\x40\x00"]
    other = bytearray(begins[-1])
    other[1:3] = b"\x41\x33"
    packets.insert(round(place * len(packets)), bytes(other))
    path.write_bytes(b"".join(packets))
    assert probe_video(path) == before[0]
    np.testing.assert_array_equal(read_clip(path), before[1])


@pytest.fixture(scope="module")
def films_to_damage(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    films = [write_clip(folder / f"film{end}", numbered(8), fps=10) for end in (".mp4", ".gif")]
    for end, codec in (
        (".mkv", "libx264"),
        (".avi", "mpeg4"),
        (".mpg", "mpeg1video"),
        (".ts", "libx264"),
    ):
        with av.open(str(folder / f"film{end}"), "w") as container:
            add_film(container, codec, 25, as_images(numbered(8)))
        films.append(folder / f"film{end}")
    return films


@settings(derandomize=True, max_examples=60, deadline=None, database=None)
@given(data=st.data())
def test_damaged_films_are_read_or_refused(films_to_damage, data):
    """Pictures carry no checksum: what is read is frames of a film, if not always this one's."""
    whole = data.draw(st.sampled_from(films_to_damage))
    content = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        ends = st.integers(0, min(900, len(content) - 1))
        place = data.draw(st.one_of(ends, ends.map(lambda n: -1 - n), st.integers(0, 10**6)))
        content[place % len(content)] = data.draw(st.integers(0, 255))
    spoilt = whole.with_stem("spoilt")
    spoilt.write_bytes(content)
    for read in (
        lambda: probe_video(spoilt).duration,
        lambda: read_clip(spoilt),
        lambda: np.stack(list(iter_clips(spoilt, [0.0, 0.1], 0.2, fps=10))),
        lambda: np.stack(list(iter_frames(spoilt, [0.0, 0.1, 0.2]))) / 255,
    ):
        try:
            values = np.asarray(read())
        except InputError as error:
            assert str(error).startswith("Film ") and "\n" not in str(error)
        else:
            assert np.isfinite(values).all() and values.min() >= 0
            assert values.ndim == 0 or values.max() <= 1


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("step", [100, 300])
def test_rate_is_found_with_and_without_an_index(tmp_path, suffix, step, monkeypatch):
    """mp4 lists its frames, Matroska some of them: every other frame stays for `step` ms."""
    pts = np.cumsum([100, step] * 20).tolist()
    path = encode(tmp_path / f"film{suffix}", as_images(numbered(40)), pts)
    asked = mock.Mock(side_effect=video_module._packets)
    monkeypatch.setattr(video_module, "_packets", asked)
    assert video_module._has_variable_rate(path) == (step != 100)
    assert asked.called == (suffix == ".mkv")
