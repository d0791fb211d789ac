"""
What beats what, beyond what
============================

Four feature spaces of simulated films: motion, single frames, sound and words. Sound goes with
motion, as in films. Some voxels see, some hear, some read; a control space tells them apart.
"""

# sphinx_gallery_thumbnail_number = 2
import matplotlib.pyplot as plt
import numpy as np

from brainnrds import VideoEncodingModel
from brainnrds.encoding import (
    compare_feature_spaces,
    held_out_predictions,
    models_of,
    partition_variance,
    select_feature_spaces,
)
from brainnrds.features import delay
from brainnrds.plotting import plot_grouped_bars, plot_variance_partition

# %%
# Films and voxels
# ----------------
# Eight films of four minutes. Twenty voxels hear nothing but sound, twenty see nothing but motion,
# and so on; responses come two volumes later.

rng = np.random.default_rng(0)
n_films, n_volumes, t_r = 8, 120, 2.0
films = np.repeat(np.arange(n_films), n_volumes)
sizes = {"video": 10, "image": 10, "sound": 6, "words": 2}
stops = np.cumsum(list(sizes.values()))
spaces = {n: slice(s - sizes[n], s) for n, s in zip(sizes, stops.tolist(), strict=True)}

X = rng.standard_normal((len(films), stops[-1]))
mixing = np.linalg.qr(rng.standard_normal((10, 6)))[0]
X[:, spaces["sound"]] = 0.8 * X[:, spaces["video"]] @ mixing + 0.6 * X[:, spaces["sound"]]

heard = np.repeat([*spaces], 20)
bold = 1.5 * rng.standard_normal((len(films), len(heard)))
for name, columns in spaces.items():
    signal = delay(X[:, columns], (2,), runs=films) @ rng.standard_normal((sizes[name], len(heard)))
    bold += (heard == name) * signal / signal.std(0)


def predict(names):
    """Held-out predictions of a model on some of the feature spaces."""
    features, columns = select_feature_spaces(X, spaces, names)
    model = VideoEncodingModel(columns, delays=(1, 2, 3), n_iter=8, random_state=0)
    return held_out_predictions(model, features, bold, runs=films, n_folds=4)


def compare(names, controls=()):
    """Every model's held-out predictions, and what they say of each other."""
    models = models_of(names, control_spaces=controls)
    held_out = {name: predict(used) for name, used in models.items()}
    how = {"t_r": t_r, "runs": films, "n_permutations": 1000, "random_state": 0}
    return held_out, compare_feature_spaces(bold, held_out, **how)


# %%
# The trap
# --------
# Motion features predict voxels that only hear, because sound goes with motion: they are Video >
# Image. With sound in every model, they are not; and voxels that see motion stay.

_, plain = compare(["video", "image"])
_, beyond = compare(["video", "image", "sound", "words"], ["sound", "words"])
wins = {
    title: {
        f"voxels of {name}": np.mean(
            (test.p_values < 0.05)[heard == name] & (test.score > 0)[heard == name]
        )
        for name in spaces
    }
    for title, test in (
        ("no control space", plain.tests["difference"]),
        ("beyond sound and words", beyond.tests["difference"]),
    )
}
plot_grouped_bars(
    wins,
    groups={f"voxels of {name}": name for name in spaces},
    label="share with Video > Image, p < .05",
)
plt.show()
for title, shares in wins.items():
    print(title, {name: f"{share:.0%}" for name, share in shares.items()})

# %%
# What they share
# ---------------
# Motion, single frames and sound in the voxels that hear: what motion could have explained as well
# is shared; what is left is unique to sound.

held_out, found = compare(["video", "image", "sound"])
models = {(name,): held_out[name] for name in ("video", "image", "sound")}
models |= {
    ("video", "image", "sound"): held_out["joint"],
    ("image", "sound"): held_out["withoutvideo"],
    ("video", "sound"): held_out["withoutimage"],
    ("video", "image"): held_out["withoutsound"],
}
areas = partition_variance(
    bold,
    {names: result.predictions for names, result in models.items()},
    runs=films,
    folds=held_out["joint"].folds,
)
plot_variance_partition(
    {names: values[heard == "sound"].mean() for names, values in areas.items()},
    names={"video": "motion", "image": "single frames"},
    label="mean R²",
    title="Voxels that hear",
)
plt.show()

# %%
# In the App this is ``--control-space sound=spectrum words=word-rate``, and ``--feature-space``
# where a space is to compete: :doc:`/user_guide/beyond`.

for name, test in found.unique_tests.items():
    share = np.mean(test.p_values[heard == name] < 0.05)
    print(f"unique to {name}: significant in {share:.0%} of its own voxels")
