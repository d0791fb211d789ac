"""The renderers of the App by name: a new one is its module, its line here and its page.

An entry is a function of the options of the analysis, a device and the duration of a clip in s. The
names are read by the command line, which must not wait for torch: entries import what they make.
"""

from pathlib import Path

from brainnrds._checks import InputError

__all__ = ["RENDERERS", "check_renderer", "make_renderer"]

_WITHOUT_WEIGHTS = ("splat",)
# motion is another file's than the base model's
_WITH_CHECKPOINT = ("dragnuwa", "motionpro")


def _load(options, device, **checkpoint):
    from brainnrds.reanimation import load_video_model

    return load_video_model(
        options.video_model,
        **checkpoint,
        device=device,
        dtype=options.dtype,
        compile=options.compile,
        offload=options.offload,
    )


def _sampling(options, duration):
    own = {} if options.num_steps is None else {"num_steps": options.num_steps}
    return {
        "n_frames": options.n_frames,
        "duration": duration,
        "batch_size": options.batch_size,
        "cache_steps": options.cache_steps,
        **own,
    }


def _splat(options, device, duration):
    from brainnrds.reanimation import SplatRenderer

    return SplatRenderer(options.n_frames, device=device)


def _dragnuwa(options, device, duration):
    from brainnrds.reanimation import DragNUWARenderer

    model = _load(options, device, checkpoint=options.checkpoint)
    return DragNUWARenderer(model, **_sampling(options, duration))


def _motionpro(options, device, duration):
    from brainnrds.reanimation import DragNUWARenderer

    model = _load(options, device, checkpoint=options.checkpoint, input_channels=3)
    return DragNUWARenderer(model, reference="first", **_sampling(options, duration))


def _time_to_move(options, device, duration):
    from brainnrds.reanimation import TimeToMoveRenderer

    return TimeToMoveRenderer(_load(options, device), **_sampling(options, duration))


def _image_to_video(options, device, duration):
    from brainnrds.reanimation import ImageToVideoRenderer

    return ImageToVideoRenderer(_load(options, device), **_sampling(options, duration))


def _wan_vace(options, device, duration):
    from brainnrds.reanimation import WanVACERenderer, load_wan_vace

    model = load_wan_vace(
        options.video_model, device=device, dtype=options.dtype, compile=options.compile
    )
    own = {} if options.num_steps is None else {"num_steps": options.num_steps}
    return WanVACERenderer(model, n_frames=options.n_frames, duration=duration, **own)


RENDERERS = {
    "splat": _splat,
    "dragnuwa": _dragnuwa,
    "motionpro": _motionpro,
    "time-to-move": _time_to_move,
    "image-to-video": _image_to_video,
    "wan-vace": _wan_vace,
}


def check_renderer(name, options):
    """Refuse a renderer whose weights are not named or not there, before anything is loaded.

    Parameters
    ----------
    name, options
        As of `make_renderer`.

    Raises
    ------
    InputError
        There is no such renderer, or it lacks or does not take an option.
    """
    if name not in RENDERERS:
        raise InputError(f"--renderer must be one of {', '.join(RENDERERS)}; got {name!r}.")
    if name in _WITHOUT_WEIGHTS:
        return
    from brainnrds.reanimation._weights import find_folder

    try:
        if options.video_model is None:
            raise InputError("needs --video-model: a folder or a hub id.")
        if name in _WITH_CHECKPOINT and options.checkpoint is None:
            raise InputError("needs --checkpoint: the model's weights.")
        if name in _WITH_CHECKPOINT and not Path(options.checkpoint).is_file():
            raise InputError(f"--checkpoint must be a file; got {options.checkpoint}.")
        if name == "wan-vace" and (
            options.offload or options.batch_size is not None or options.cache_steps > 1
        ):
            raise InputError(
                "renders clip by clip, on one device: no --offload, --batch-size or --cache-steps."
            )
        find_folder(options.video_model)
    except (InputError, OSError) as error:
        raise InputError(f"--renderer {name}: {error}") from error


def make_renderer(name, options, *, device, duration):
    """Make a renderer by its name.

    Parameters
    ----------
    name : str
        A key of `RENDERERS`.
    options : object
        With attributes ``video_model`` (folder or hub id of Stable Video Diffusion, of Wan 2.1 VACE
        for "wan-vace"; all but "splat" need it), ``checkpoint`` ("dragnuwa" and "motionpro" need
        it), ``n_frames``, ``num_steps`` (None: the renderer's own), ``cache_steps`` (see
        `brainnrds.reanimation.Sampling`), ``batch_size`` (None: by free memory), ``dtype``,
        ``compile`` and ``offload`` (see `brainnrds.reanimation.VideoModel`).
    device : str
    duration : float
        Of a clip, s.

    Returns
    -------
    renderer : callable

    Raises
    ------
    InputError
        There is no such renderer, or its weights are missing, damaged or another model's.
    """
    check_renderer(name, options)
    try:
        return RENDERERS[name](options, device, duration)
    except (InputError, OSError) as error:
        raise InputError(f"--renderer {name}: {error}") from error
