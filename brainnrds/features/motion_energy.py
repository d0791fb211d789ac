"""Motion energy and static energy of clips, with pymoten's Gabor filters.

Both are banks of spatio-temporal Gabor filters in quadrature [1]_ [2]_, as pymoten defines them.
Motion energy takes the filters with a temporal frequency above 0, static energy those at 0 Hz: the
two feature spaces share no filter. Projections are computed as matrix products that equal
pymoten's own with ``blind_to_still=False, offset=1e-5``. The defaults differ, because with
pymoten's values motion energy is largely a picture of what stands still, and both spaces miss what
happens off the centre:

- pymoten's moving filters have a mean over time, so that a still edge drives them. In films still
  contrast is many times larger than its change, and the motion space then explains responses to
  still pictures. Here what stands still has no energy.
- the logarithm of nearly nothing is a large negative number. Where no frame changes, as in
  animation drawn on twos, an offset of 1e-5 makes such moments outliers that outweigh all degrees
  of motion. An offset of 1 is small against the energies of films, whose luminance runs to 100.
- pymoten's spacing of 3.5 standard deviations leaves one filter, in the centre of the image, at 2
  and at 4 cycles. Neighbours 2 standard deviations and half an octave apart cover the image.

References
----------
.. [1] Adelson EH, Bergen JR (1985). Spatiotemporal energy models for the perception of motion.
   Journal of the Optical Society of America A 2, 284-299.
.. [2] Nishimoto S, et al. (2011). Reconstructing visual experiences from brain activity evoked by
   natural movies. Current Biology 21, 1641-1646.
"""

from functools import lru_cache

import cv2
import numpy as np

from brainnrds._checks import InputError
from brainnrds.features._extractor import Extractor

__all__ = ["MotionEnergy", "StaticEnergy"]

# pymoten ignores pixels where a spatial filter is weaker than this
_MASK_LIMIT = 1e-3


class _GaborEnergy(Extractor):
    def transform(self, clips):
        """Return the mean log energy of each filter in each clip.

        Parameters
        ----------
        clips : array of shape (n_clips, n_frames, 3, height, width), or iterable of clips
            Float in [0, 1], at `fps` frames per second. Clips of another size are resized.

        Returns
        -------
        features : array of float32 of shape (n_clips, n_features)
            Mean over the frames at which the temporal filter fits into the clip.
        """
        if not self.offset > 0:
            raise InputError(f"`offset` must be positive; got {self.offset}.")
        bank = self._bank()
        rows = [bank.energy(_luminance(clip, tuple(self.size)), self.offset) for clip in clips]
        if not rows:
            return np.empty((0, bank.n_filters), dtype=np.float32)
        return np.stack(rows)

    def filter_parameters(self):
        """Return what each column responds to.

        Returns
        -------
        parameters : dict of str to array of shape (n_features,)
            pymoten's names and units: ``centerh``, ``centerv`` (in image heights from the top
            left), ``direction`` (degrees, 0 = right, 90 = up), ``spatial_freq`` (cycles per
            image height), ``temporal_freq`` (Hz), ... Only ``direction`` differs from pymoten's,
            by 180 degrees for moving filters: pymoten convolves in time, so that its responses
            are largest to motion opposite to the filter's own.
        """
        return {name: values.copy() for name, values in self._bank().parameters.items()}

    def get_feature_names_out(self, input_features=None):
        """Return one name per column.

        Parameters
        ----------
        input_features : ignored

        Returns
        -------
        names : array of str of shape (n_features,)
        """
        p = self._bank().parameters
        return np.array(
            [
                f"{sf:g}cpi_{tf:g}Hz_{direction:g}deg_h{h:.2f}_v{v:.2f}_sd{width:.2f}"
                for sf, tf, direction, h, v, width in zip(
                    p["spatial_freq"],
                    p["temporal_freq"],
                    p["direction"],
                    p["centerh"],
                    p["centerv"],
                    p["spatial_env"],
                    strict=True,
                )
            ],
            dtype=object,
        )


class MotionEnergy(_GaborEnergy):
    """Energy of moving Gabor filters (temporal frequency above 0 Hz) in each clip.

    Parameters
    ----------
    size : tuple of int, default=(48, 64)
        Height and width in pixels to which frames are brought.
    fps : int, default=12
        Frames per second of the clips. The temporal filter is two thirds of a second long, so
        that clips must last at least that long.
    spatial_frequencies : sequence of float, default=(0, 2, 2.83, 4, 5.66, 8)
        Cycles per image height; 0 is local luminance (flicker).
    temporal_frequencies : sequence of float, default=(2, 4)
        Hz, above 0 and at most fps / 2.
    filter_spacing : float, default=2.0
        Distance between neighbouring filters in standard deviations of their spatial envelope;
        pymoten has 3.5.
    blind_to_still : bool, default=True
        Take the mean over time from each filter; False: pymoten's filters.
    offset : float, default=1.0
        Added to the energy before the logarithm; pymoten has 1e-5.

    See Also
    --------
    StaticEnergy : the filters at 0 Hz.

    Notes
    -----
    Frames are turned into CIE luminance L* (0 to 100); each filter's response is
    ``log(energy + offset)`` per frame, with energy the root of the summed squares of its quadrature
    pair, and averaged over frames. With the default parameters there are 1,134 columns.

    Examples
    --------
    >>> import numpy as np
    >>> from brainnrds.features import MotionEnergy
    >>> MotionEnergy().transform(np.zeros((2, 24, 3, 48, 64))).shape
    (2, 1134)
    """

    def __init__(
        self,
        *,
        size=(48, 64),
        fps=12,
        spatial_frequencies=(0, 2, 2.83, 4, 5.66, 8),
        temporal_frequencies=(2, 4),
        filter_spacing=2.0,
        blind_to_still=True,
        offset=1.0,
    ):
        self.size = size
        self.fps = fps
        self.spatial_frequencies = spatial_frequencies
        self.temporal_frequencies = temporal_frequencies
        self.filter_spacing = filter_spacing
        self.blind_to_still = blind_to_still
        self.offset = offset

    def _bank(self):
        frequencies = tuple(float(f) for f in self.temporal_frequencies)
        if not frequencies or min(frequencies) <= 0 or max(frequencies) > self.fps / 2:
            raise InputError(
                f"`temporal_frequencies` must lie above 0 and at most at fps / 2 = "
                f"{self.fps / 2:g} Hz; got {frequencies}."
            )
        return _gabor_bank(
            tuple(self.size),
            self.fps,
            tuple(map(float, self.spatial_frequencies)),
            frequencies,
            float(self.filter_spacing),
            bool(self.blind_to_still),
        )


class StaticEnergy(_GaborEnergy):
    """Energy of Gabor filters that do not move (0 Hz) in each clip.

    Parameters
    ----------
    size : tuple of int, default=(48, 64)
        Height and width in pixels to which frames are brought.
    fps : int, default=12
        Frames per second of the clips.
    spatial_frequencies : sequence of float, default=(0, 2, 2.83, 4, 5.66, 8)
        Cycles per image height; 0 is local luminance.
    filter_spacing : float, default=2.0
        Distance between neighbouring filters in standard deviations of their spatial envelope;
        pymoten has 3.5.
    offset : float, default=1.0
        Added to the energy before the logarithm; pymoten has 1e-5.

    See Also
    --------
    MotionEnergy : the filters above 0 Hz, and how energy is computed.

    Notes
    -----
    With the default parameters there are 315 columns.
    """

    def __init__(
        self,
        *,
        size=(48, 64),
        fps=12,
        spatial_frequencies=(0, 2, 2.83, 4, 5.66, 8),
        filter_spacing=2.0,
        offset=1.0,
    ):
        self.size = size
        self.fps = fps
        self.spatial_frequencies = spatial_frequencies
        self.filter_spacing = filter_spacing
        self.offset = offset

    def _bank(self):
        return _gabor_bank(
            tuple(self.size),
            self.fps,
            tuple(map(float, self.spatial_frequencies)),
            (0.0,),
            float(self.filter_spacing),
            False,
        )


@lru_cache(maxsize=8)
def _gabor_bank(*settings):
    return _GaborBank(*settings)


class _GaborBank:
    """pymoten's filters as matrices: each spatial filter is applied once, whatever its times."""

    def __init__(
        self,
        size,
        fps,
        spatial_frequencies,
        temporal_frequencies,
        filter_spacing,
        blind_to_still,
    ):
        from moten.core import mk_3d_gabor
        from moten.pyramids import MotionEnergyPyramid

        if len(size) != 2 or min(size) < 8:
            raise InputError(f"`size` must be (height, width) of at least 8 pixels; got {size}.")
        if not filter_spacing > 0:
            raise InputError(f"`filter_spacing` must be positive; got {filter_spacing}.")
        if int(fps) != fps or fps < 3:
            raise InputError(f"`fps` must be a whole number of at least 3; got {fps!r}.")
        self.fps = int(fps)
        pyramid = MotionEnergyPyramid(
            stimulus_vhsize=size,
            stimulus_fps=self.fps,
            temporal_frequencies=list(temporal_frequencies),
            spatial_frequencies=list(spatial_frequencies),
            filter_spacing=filter_spacing,
        )
        self.parameters = {
            name: np.asarray(pyramid.parameters[name]) for name in pyramid.parameters_names
        }
        moving = self.parameters["temporal_freq"] > 0
        direction = self.parameters["direction"]
        self.parameters["direction"] = np.where(moving, (direction + 180) % 360, direction)
        self.n_filters = pyramid.nfilters
        spatial, temporal = {}, {}
        self.spatial_of_filter, self.temporal_of_filter = [], []
        for parameters in pyramid.filters:
            *pair, temporal_sin, temporal_cos = mk_3d_gabor(size, **parameters)
            place = tuple(
                parameters[k]
                for k in ("centerh", "centerv", "direction", "spatial_freq", "spatial_env")
            )
            time = (parameters["temporal_freq"], parameters["temporal_env"])
            if place not in spatial:
                sine, cosine = (np.asarray(g, dtype=np.float64).ravel() for g in pair)
                strong = np.abs(sine) + np.abs(cosine) > _MASK_LIMIT
                spatial[place] = (len(spatial), sine * strong, cosine * strong)
            if time not in temporal:
                temporal[time] = (len(temporal), np.asarray(temporal_sin), np.asarray(temporal_cos))
            self.spatial_of_filter.append(spatial[place][0])
            self.temporal_of_filter.append(temporal[time][0])
        self.temporal_of_filter = np.array(self.temporal_of_filter)
        self.spatial_of_filter = np.array(self.spatial_of_filter)
        self.sines = np.stack([s for _, s, _ in spatial.values()], axis=1).astype(np.float32)
        self.cosines = np.stack([c for _, _, c in spatial.values()], axis=1).astype(np.float32)
        self.temporal = [(sine, cosine) for _, sine, cosine in temporal.values()]
        if blind_to_still:
            self.temporal = [tuple(_without_mean(*pair)) for pair in self.temporal]
        self.width = len(self.temporal[0][0])

    def energy(self, luminance, offset):
        """Mean log energy (n_filters,) of a clip's luminance (n_frames, height * width)."""
        n_frames = len(luminance)
        if n_frames < self.width:
            raise InputError(
                f"clips must have at least {self.width} frames ({self.width / self.fps:.2f} s at "
                f"{self.fps} fps), the length of the temporal filter; got {n_frames}."
            )
        sines, cosines = luminance @ self.sines, luminance @ self.cosines
        features = np.empty(self.n_filters, dtype=np.float32)
        for i_time, (temporal_sine, temporal_cosine) in enumerate(self.temporal):
            filters = self.temporal_of_filter == i_time
            used = self.spatial_of_filter[filters]
            # [valid frames, frames] @ [frames, filters]
            with_sine = _convolution(temporal_sine, n_frames)
            with_cosine = _convolution(temporal_cosine, n_frames)
            s, c = sines[:, used], cosines[:, used]
            energy = np.hypot(with_cosine @ s + with_sine @ c, with_cosine @ c - with_sine @ s)
            features[filters] = np.log(energy + offset).mean(0)
        return features


def _without_mean(sine, cosine):
    """Take the mean over time from a quadrature pair, with the weights of its envelope."""
    envelope = np.hypot(sine, cosine)
    weights = envelope / envelope.sum()
    return [wave - weights * wave.sum() for wave in (sine, cosine)]


def _convolution(kernel, n_frames):
    """Matrix (n_frames - width + 1, n_frames) that convolves where the kernel fits."""
    width = len(kernel)
    matrix = np.zeros((n_frames - width + 1, n_frames), dtype=np.float32)
    for row in range(len(matrix)):
        matrix[row, row : row + width] = kernel[::-1]
    return matrix


def _luminance(clip, size):
    """CIE L* (0-100) of a clip (n_frames, 3, h, w), resized -> (n_frames, height * width)."""
    clip = np.asarray(clip, dtype=np.float32)
    if clip.ndim != 4 or clip.shape[1] != 3:
        raise InputError(
            f"each clip must have shape (n_frames, 3, height, width); got {clip.shape}."
        )
    if clip.min() < -1e-3 or clip.max() > 1 + 1e-3 or not np.isfinite(clip).all():
        raise InputError(
            f"clips must be finite and lie in [0, 1]; got values in [{clip.min():g}, "
            f"{clip.max():g}]."
        )
    frames = clip.transpose(0, 2, 3, 1)  # [frame, height, width, channel]
    if frames.shape[1:3] != size:
        frames = np.stack(
            [
                cv2.resize(np.ascontiguousarray(frame), size[::-1], interpolation=cv2.INTER_AREA)
                for frame in frames
            ]
        )
    # sRGB to linear light to CIE 1976 L*, with the constants of IEC 61966-2-1 and CIE 15
    frames = np.clip(frames, 0, 1)
    linear = np.where(frames < 0.04045, frames / 12.92, ((frames + 0.055) / 1.055) ** 2.4)
    y = linear @ np.array([0.212671, 0.715160, 0.072169], dtype=np.float32)
    lightness = np.where(y < 0.008856, 903.3 * y, 116 * np.cbrt(y) - 16)
    return lightness.reshape(len(clip), -1).astype(np.float32)
