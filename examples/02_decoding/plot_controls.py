"""
Did the brain put it there?
===========================

A decoded flow can look right and owe nothing to the brain: the initial frame tells which things
tend to move, and the average film tells how much. So every score stands beside controls, above all
the same network, trained and tested with BOLD of other films. An image-only decoder, no motion and
mean motion say what can be had without BOLD.
"""

# sphinx_gallery_thumbnail_number = 1
from brainnrds import MotionDecoder
from brainnrds.datasets import make_flow_samples
from brainnrds.decoding import compare_to_controls
from brainnrds.plotting import plot_controls, plot_null_gain

# %%
# Fit on eight films; four films of 2 min each are for testing: 12 blocks of 40 s, the fewest that
# give a p-value.

samples = make_flow_samples(n_films=12, grid=(4, 4), random_state=0)
test = samples.films >= 8
labels = {"runs": samples.films, "films": samples.films}
settings = {
    "n_bold_channels": 64,
    "n_channels": 32,
    "n_epochs": 40,
    "patience": 5,
    "batch_size": 32,
    "learning_rate": 3e-3,
    "random_state": 0,
}


def fit(samples):
    return MotionDecoder(16, **settings).fit(
        samples.bold[~test],
        samples.flow[~test],
        image_features=samples.image_features[~test],
        runs=samples.films[~test],
        films=samples.films[~test],
    )


decoder = fit(samples)
comparison = compare_to_controls(
    decoder,
    samples.bold,
    samples.flow,
    test=test,
    t_r=samples.t_r,
    image_features=samples.image_features,
    n_seeds=1,
    n_draws=3,
    n_permutations=300,
    random_state=0,
    **labels,
)
columns = ["end_point_error_px", "flow_cosine", "identification_10_way", "gain_px"]
print(comparison.table[columns].round(3).to_string())
plot_controls(comparison.table)

# %%
# The **brain gain** is the error of the control with unrelated BOLD minus that of the decoder, over
# clips and over trainings. The test: the fitted decoders are kept, whole windows of test BOLD
# change places in blocks of 40 s. `supported` says whether the gain may be claimed: every network
# had stopped learning, the interval is above 0, and p < .05.

print(comparison.gain.drop(columns="note").round(4).T.to_string())
gain = comparison.gain.loc["all"]
plot_null_gain(comparison.null_gain, gain["gain_px"], p=gain["p"])

# %%
# Where the frame gives the motion away and BOLD holds next to nothing, the image-only control wins,
# and the gain is about 0, however good the error looks beside no motion.

predictable = make_flow_samples(n_films=12, grid=(4, 4), snr=0.05, frame_share=1.5, random_state=1)
comparison = compare_to_controls(
    fit(predictable),
    predictable.bold,
    predictable.flow,
    test=test,
    t_r=predictable.t_r,
    image_features=predictable.image_features,
    n_seeds=1,
    n_draws=2,
    n_permutations=100,
    random_state=0,
    **labels,
)
print(comparison.table[columns].round(3).to_string())
plot_controls(comparison.table)
