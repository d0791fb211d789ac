"""The only place that knows files: BIDS data sets and films in, derivatives out."""

from brainnrds._checks import InputError
from brainnrds._files import atomic_path, load_json
from brainnrds._hdf5 import load_arrays, save_arrays
from brainnrds.io._texts import load_table, save_json, save_table
from brainnrds.io.atlas import load_atlas
from brainnrds.io.bids import (
    Presentation,
    Run,
    draft_film_table,
    find_design,
    find_runs,
    list_subjects,
)
from brainnrds.io.bold import load_runs
from brainnrds.io.derivatives import (
    check_output_dir,
    derivative_path,
    load_clips,
    load_flow,
    load_group_maps,
    load_map,
    save_clips,
    save_flow,
    save_map,
    save_series,
    to_label,
    write_dataset_description,
)
from brainnrds.io.feature_files import (
    FeatureFiles,
    FlowFiles,
    WordEmbeddings,
    WordRate,
    read_feature_file,
    read_transcript,
    write_feature_file,
)
from brainnrds.io.film_parts import cut_only_film
from brainnrds.io.grids import describe_grid, masker_of
from brainnrds.io.images import CiftiMasker
from brainnrds.io.samples import MovieData, average_repeats
from brainnrds.io.sound import read_sound
from brainnrds.io.trials import load_trials
from brainnrds.io.video import Video, iter_clips, probe_video, read_clip, write_clip

__all__ = [
    "CiftiMasker",
    "FeatureFiles",
    "FlowFiles",
    "InputError",
    "MovieData",
    "Presentation",
    "Run",
    "Video",
    "WordEmbeddings",
    "WordRate",
    "atomic_path",
    "average_repeats",
    "check_output_dir",
    "cut_only_film",
    "derivative_path",
    "describe_grid",
    "draft_film_table",
    "find_design",
    "find_runs",
    "iter_clips",
    "list_subjects",
    "load_arrays",
    "load_atlas",
    "load_clips",
    "load_flow",
    "load_group_maps",
    "load_json",
    "load_map",
    "load_runs",
    "load_table",
    "load_trials",
    "masker_of",
    "probe_video",
    "read_clip",
    "read_feature_file",
    "read_sound",
    "read_transcript",
    "save_arrays",
    "save_clips",
    "save_flow",
    "save_json",
    "save_map",
    "save_series",
    "save_table",
    "to_label",
    "write_clip",
    "write_dataset_description",
    "write_feature_file",
]
