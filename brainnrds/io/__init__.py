"""The only place that knows files: BIDS data sets and films in, derivatives out.

Names are imported on first use: processes that decode films need few of them.
"""

from brainnrds._lazy import lazily

__all__, __getattr__, __dir__ = lazily(
    __name__,
    {
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
    },
)
