"""The only place that knows files: BIDS data sets and films in, derivatives out.

Names are imported on first use: processes that decode films need few of them.
"""

from importlib import import_module

_HOMES = {
    "brainnrds._checks": ("InputError",),
    "brainnrds._files": (
        "atomic_path",
        "load_json",
    ),
    "brainnrds._hdf5": (
        "load_arrays",
        "save_arrays",
    ),
    "brainnrds.io._texts": (
        "load_table",
        "save_json",
        "save_table",
    ),
    "brainnrds.io.atlas": ("load_atlas",),
    "brainnrds.io.bids": (
        "Presentation",
        "Run",
        "draft_film_table",
        "find_design",
        "find_runs",
        "list_subjects",
    ),
    "brainnrds.io.bold": ("load_runs",),
    "brainnrds.io.derivatives": (
        "check_output_dir",
        "derivative_path",
        "load_clips",
        "load_flow",
        "load_group_maps",
        "load_map",
        "save_clips",
        "save_flow",
        "save_map",
        "save_series",
        "to_label",
        "write_dataset_description",
    ),
    "brainnrds.io.feature_files": (
        "FeatureFiles",
        "FlowFiles",
        "WordEmbeddings",
        "WordRate",
        "read_feature_file",
        "read_transcript",
        "write_feature_file",
    ),
    "brainnrds.io.film_parts": ("cut_only_film",),
    "brainnrds.io.grids": (
        "describe_grid",
        "masker_of",
    ),
    "brainnrds.io.images": ("CiftiMasker",),
    "brainnrds.io.samples": (
        "MovieData",
        "average_repeats",
    ),
    "brainnrds.io.sound": ("read_sound",),
    "brainnrds.io.trials": ("load_trials",),
    "brainnrds.io.video": (
        "Video",
        "iter_clips",
        "probe_video",
        "read_clip",
        "write_clip",
    ),
}

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


def __getattr__(name):
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'brainnrds.io' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
