"""
Which network predicts the brain best?
======================================

The paper's comparison of encoders for one participant of any BIDS data set: mean held-out
correlation per encoder, over all voxels and per parcel, with the noise ceiling. It needs the
networks' weights (``--download`` fetches them; mind their licences) and, for hours of film, a GPU::

    python run_compare_encoders.py /data/bids out --subject 01 --device auto --n-cpus 16 --download

All encoders share one decoding of the films, and an interrupted run goes on where it was. The BIDS
App does the same, once the weights are there: name several encoders after ``--video-encoder`` and
``--image-encoder``.
"""

# sphinx_gallery_thumbnail_path = "images/encode_bars.png"
import argparse
from pathlib import Path

from brainnrds.analyses import EncodeOptions, Selection, encode_participant
from brainnrds.features import ImageEncoder, VideoEncoder, list_encoders
from brainnrds.io import load_table

# the paper's; its R3M and VIP are networks for robots that are not offered here
VIDEO = ["videomae-large", "videomae-base", "xclip-base", "motion-energy"]
IMAGE = ["clip-convnext-base", "clip-vit-base", "dinov2-base", "dino-base", "resnet50"]
IMAGE += ["hiera-base-plus", "vc1-large", "static-energy"]

parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
parser.add_argument("bids_dir", type=Path)
parser.add_argument("output_dir", type=Path)
parser.add_argument("--subject", required=True)
parser.add_argument("--derivatives", type=Path)
parser.add_argument("--task", nargs="+")
parser.add_argument("--space")
parser.add_argument("--confounds", nargs="*", default=["motion", "high_pass", "wm_csf"])
parser.add_argument("--video-encoders", nargs="+", default=VIDEO, help="names, hub ids or folders")
parser.add_argument("--image-encoders", nargs="+", default=IMAGE, help="names, hub ids or folders")
parser.add_argument("--atlas", help="label file of the data's space, or hcp-mmp")
parser.add_argument("--work-dir", type=Path, default=Path("work"))
parser.add_argument("--device", default="cpu")
parser.add_argument("--n-cpus", type=int, default=1)
parser.add_argument("--download", action="store_true")
options = parser.parse_args()

# %%
# Weights
# -------
# Nothing is downloaded unless asked for, and only what the table of encoders knows.

if options.download:
    for name in {*options.video_encoders, *options.image_encoders} & set(list_encoders().index):
        encoder = VideoEncoder if name in options.video_encoders else ImageEncoder
        encoder(name, download=True).fit()

# %%
# Held-out predictions of every film by every encoder
# ---------------------------------------------------
# The first video and the first image encoder make the maps of Video > Image as well.

result = encode_participant(
    Selection(
        bids_dir=options.bids_dir,
        derivatives=options.derivatives,
        task=options.task,
        space=options.space,
    ),
    options.output_dir,
    options.subject,
    EncodeOptions(
        confounds=options.confounds,
        video_encoders=options.video_encoders,
        image_encoders=options.image_encoders,
        atlas=options.atlas,
        device=options.device,
        n_jobs=options.n_cpus,
    ),
    work_dir=options.work_dir,
)

# %%
# Table and chart
# ---------------
# The report shows the chart; the tables beside it have every parcel.

folder = options.output_dir / f"sub-{options.subject}" / "func"
for path in sorted(folder.glob("*_desc-encodeEncoders_table.tsv")):
    print(path)
    print(load_table(path).to_string(index=False, float_format="{:.3f}".format))
print(result.report)
