"""
A new person from a few minutes
===============================

A decoder learns from three people what motion looks like; for a fourth person only the layer that
reads voxels is fitted. How many minutes does it need, and how many does a decoder from scratch? The
data are made here and their truth is known.
"""

import numpy as np

from brainnrds import MotionDecoder
from brainnrds.datasets import make_flow_samples
from brainnrds.decoding import transfer_curve
from brainnrds.plotting import plot_gain_curve

# %%
# Four people with voxels of their own, 7 films of 60 clips each, one volume of 2 s a clip. Films
# differ between people here, and so do voxels.

T_R = 2.0
people = [make_flow_samples(n_films=7, grid=(4, 4), random_state=seed) for seed in range(4)]
*others, new = people

# %%
# One decoder of three people: a read-in layer for each, one trunk for all.


def join(name):
    return np.concatenate([getattr(person, name) for person in others])


films = np.concatenate([100 * i + person.films for i, person in enumerate(others)])
decoder = MotionDecoder(
    16,
    n_bold_channels=64,
    n_channels=32,
    n_blocks=1,
    n_epochs=10,
    batch_size=128,
    learning_rate=5e-3,
    random_state=0,
)
decoder.fit(
    join("bold"),
    join("flow"),
    image_features=join("image_features"),
    runs=films,
    films=films,
    subjects=films // 100,
)

# %%
# The brain gain of the new person's decoders in films that none of them saw, over the same decoder
# with BOLD of other films. From scratch, the few minutes have to teach everything.

curve = transfer_curve(
    decoder,
    new.bold,
    new.flow,
    test=new.films >= 4,
    minutes=(4, 8),
    t_r=T_R,
    block_length=20,
    image_features=new.image_features,
    runs=new.films,
    films=new.films,
    n_draws=2,
    random_state=0,
)
print(curve.round(3).to_string(index=False))
plot_gain_curve(curve)
