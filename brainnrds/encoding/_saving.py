"""A fitted encoding model in one HDF5 file, without pickle: what predicts, and what was chosen."""

import numpy as np
from scipy.sparse import issparse

from brainnrds._checks import InputError
from brainnrds._files import plain
from brainnrds._hdf5 import load_arrays, save_arrays
from brainnrds.features import FeatureProjection
from brainnrds.features.delays import check_delays

__all__ = ["read_model", "write_model"]

_KIND = "VideoEncodingModel"
_FORMAT = 1
_WEIGHTS = ("dual_coef_", "primal_coef_")
# in the file without their underscores
_ARRAYS = (
    "alphas_",
    "cv_scores_",
    "feature_mean_",
    "feature_names_in_",
    "feature_scale_",
    "intercept_",
    "mixture_prior_",
    "mixtures_",
    "_X_train",
    "_runs_train",
    "_shown_train",
)
# of arrays that are not of floats
_KINDS = {"feature_names_in": "U", "runs_train": "i", "shown_train": "b"}
_WORDS = {"f": "float", "i": "int", "u": "unsigned int", "b": "bool", "U": "text"}
# scores of mixtures that were not tried, and scales of columns that say nothing, need not be
_NOT_FINITE = ("cv_scores", "mixture_prior", "projection_scale")
# splitters and generators serve the fit alone, and have no words in JSON
_PLAIN = (str, int, float, type(None), list, tuple, np.generic, np.ndarray)


def write_model(model, path, *, dtype, metadata):
    """Write a fitted model; see :meth:`brainnrds.encoding.VideoEncodingModel.save`."""
    if np.dtype(dtype) not in (np.float16, np.float32):
        raise InputError(f"`dtype` must be 'float16' or 'float32'; got {dtype!r}.")
    arrays = {name.strip("_"): getattr(model, name, None) for name in _ARRAYS}
    arrays = {name: array for name, array in arrays.items() if array is not None}
    if "feature_names_in" in arrays:
        arrays["feature_names_in"] = arrays["feature_names_in"].tolist()
    for i_space, offset in enumerate(model._offsets):
        arrays[f"offset{i_space}"] = offset
    projection = getattr(model, "projection_", None)
    arrays |= {} if projection is None else _arrays_of_projection(projection)
    (name,) = (name for name in _WEIGHTS if getattr(model, name) is not None)
    weights = getattr(model, name)
    if np.dtype(dtype) == np.float16:
        # float16 is coarse below 6e-5: each voxel's weights go up to 1
        scale = np.maximum(np.abs(weights).max(0), np.finfo(np.float32).tiny)
        arrays["weight_scale"], weights = scale, (weights / scale).astype(np.float16)
    arrays[name.strip("_")] = weights
    parameters = model.get_params(deep=False)
    spaces = [(name, s.start, s.stop, s.step) for name, s in model.feature_spaces_.items()]
    about = {
        "Kind": _KIND,
        "Format": _FORMAT,
        "Parameters": {
            key: plain(value)
            for key, value in parameters.items()
            if key != "feature_spaces" and isinstance(value, _PLAIN)
        },
        "FeatureSpaces": spaces,
        "NamedFeatureSpaces": parameters["feature_spaces"] is not None,
        "NumberOfFeatures": model.n_features_in_,
        "NumberOfVoxels": model.n_voxels_,
        "Solver": model.solver_,
        "LabelsInFit": model.labels_in_fit_,
        "ResponseHasOneAxis": model._y_is_1d,
        "Projection": None if projection is None else _describe_projection(projection),
        "Metadata": metadata or {},
    }
    return save_arrays(path, arrays, metadata=about, compressed=False)


def read_model(kind, path):
    """Read what `write_model` wrote; see :meth:`brainnrds.encoding.VideoEncodingModel.load`."""
    arrays, about = load_arrays(path)
    if about.get("Kind") != _KIND:
        raise InputError(f"{path} must hold a {_KIND}; got {about.get('Kind', 'other arrays')}.")
    if about.get("Format") != _FORMAT:
        version = about.get("GeneratedBy", {}).get("Version")
        raise InputError(
            f"{path} must have format {_FORMAT} of saved models; got {about.get('Format')}, of "
            f"brainnrds {version}."
        )
    try:
        _check_arrays(path, arrays, about)
        return _build(kind, arrays, about)
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(
            f"{path} must describe a whole {_KIND}; got {type(error).__name__}: {error}."
        ) from error


def _check_arrays(path, arrays, about):
    """Refuse arrays that are not those of a model with these delays, feature spaces and voxels."""
    expected, optional = _shapes(arrays, about)
    unknown = sorted(set(arrays) - set(expected))
    if unknown:
        raise InputError(f"{path} must hold the arrays of one {_KIND}; got {unknown[0]} as well.")
    for name, shape in expected.items():
        if name not in arrays:
            if name in optional:
                continue
            raise InputError(f"{path} must hold the array {name} of shape {shape}; got none.")
        array = arrays[name]
        found = np.shape(array)
        if len(found) != len(shape) or any(
            n not in (None, m) for n, m in zip(shape, found, strict=True)
        ):
            raise InputError(
                f"{path} must hold {name} of shape {shape}, as its delays, feature spaces and "
                f"voxels say; got {found}: parts of two models are mixed."
            )
        kinds = _KINDS.get(name, "f")
        kind = np.asarray(array).dtype.kind
        if kind not in kinds:
            raise InputError(
                f"{path} must hold {name} as {' or '.join(map(_WORDS.get, kinds))}; got "
                f"{_WORDS[kind]}."
            )
        # NaN is the smallest and the largest: no mask of the size of the weights is needed
        if kinds == "f" and name not in _NOT_FINITE and np.size(array):
            if not np.isfinite([np.min(array), np.max(array)]).all():
                raise InputError(f"{path} must hold finite {name}; got NaN or infinity.")


def _shapes(arrays, about):
    """Shape of each array, None where any length will do, and which need not be there."""
    n_features, n_voxels = about["NumberOfFeatures"], about["NumberOfVoxels"]
    n_delays = len(check_delays(about["Parameters"]["delays"]))
    sizes = [n_delays * size for size in _sizes(about["FeatureSpaces"], n_features)]
    shapes = {
        "alphas": (n_voxels,),
        "cv_scores": (None, n_voxels),
        "feature_mean": (n_features,),
        "feature_names_in": (n_features,),
        "feature_scale": (n_features,),
        "intercept": (n_voxels,),
        "mixture_prior": (None,),
        "mixtures": (len(sizes), n_voxels),
        "weight_scale": (n_voxels,),
        **{f"offset{i}": (size,) for i, size in enumerate(sizes)},
    }
    optional = {"feature_names_in", "mixture_prior", "weight_scale"}
    if "primal_coef" in arrays:
        shapes["primal_coef"] = (sum(sizes), n_voxels)
    else:
        shown = arrays.get("shown_train", ())
        shapes |= {
            "X_train": (len(shown), n_features),
            "runs_train": (len(shown),),
            "shown_train": (None,),
            "dual_coef": (np.count_nonzero(shown), n_voxels),
        }
    made = about["Projection"]
    if made is not None:
        if made["Components"] != [space[:3] for space in about["FeatureSpaces"]]:
            raise InputError(
                f"the projection must make the feature spaces of the model, "
                f"{about['FeatureSpaces']}; got {made['Components']}."
            )
        n_columns = made["NumberOfFeatures"]
        shapes |= {"projection_mean": (n_columns,), "projection_scale": (n_columns,)}
        widths = [stop - start for _, start, stop in made["Components"]]
        inputs = _sizes(made["FeatureSpaces"], n_columns)
        for i, (size, width) in enumerate(zip(inputs, widths, strict=True)):
            shapes |= {f"projection_offset{i}": (size,), f"projection_matrix{i}": (size, width)}
            if size == width and f"projection_matrix{i}" not in arrays:  # left as they are
                optional |= {f"projection_offset{i}", f"projection_matrix{i}"}
    return shapes, optional


def _sizes(spaces, n_features):
    """Columns in each feature space, which together have each column once."""
    parts = [range(n_features)[slice(*columns)] for _, *columns in spaces]
    if sorted(i for part in parts for i in part) != list(range(n_features)):
        raise InputError(
            f"feature spaces of a saved model must have each of its {n_features} columns once; got "
            f"{spaces}."
        )
    return [len(part) for part in parts]


def _build(kind, arrays, about):
    spaces = {name: slice(*columns) for name, *columns in about["FeatureSpaces"]}
    model = kind(spaces if about["NamedFeatureSpaces"] else None, **about["Parameters"])
    for name in _ARRAYS:
        setattr(model, name, arrays.get(name.strip("_")))
    if model.feature_names_in_ is None:
        del model.feature_names_in_
    else:
        model.feature_names_in_ = np.asarray(model.feature_names_in_, dtype=object)
    scale = arrays.get("weight_scale", np.float32(1))
    for name in _WEIGHTS:
        weights = arrays.get(name.strip("_"))
        setattr(model, name, None if weights is None else weights * scale)
    model.feature_spaces_ = spaces
    model._offsets = [arrays[f"offset{i}"] for i in range(len(spaces))]
    model.n_features_in_ = about["NumberOfFeatures"]
    model.n_voxels_ = about["NumberOfVoxels"]
    model.solver_ = about["Solver"]
    model.labels_in_fit_ = about["LabelsInFit"]
    model._y_is_1d = about["ResponseHasOneAxis"]
    model.projection_ = _read_projection(arrays, about["Projection"])
    model.metadata_ = about["Metadata"]
    return model


def _describe_projection(projection):
    spaces = projection._spaces()
    return {
        "Parameters": {
            "n_components": projection.n_components,
            "method": projection.method,
            "batch_size": projection.batch_size,
        },
        "FeatureSpaces": [(name, s.start, s.stop, s.step) for name, s in spaces.items()],
        "Components": [(name, s.start, s.stop) for name, s in projection.feature_spaces_.items()],
        "NumberOfFeatures": projection.n_features_in_,
    }


def _arrays_of_projection(projection):
    arrays = {"projection_mean": projection.mean_, "projection_scale": projection.scale_}
    for i, parts in enumerate(projection.projections_.values()):
        if parts is not None:
            offset, matrix = parts
            matrix = matrix.toarray() if issparse(matrix) else matrix
            arrays |= {f"projection_offset{i}": offset, f"projection_matrix{i}": matrix}
    return arrays


def _read_projection(arrays, about):
    if about is None:
        return None
    spaces = {name: slice(*columns) for name, *columns in about["FeatureSpaces"]}
    projection = FeatureProjection(feature_spaces=spaces, **about["Parameters"])
    projection.mean_, projection.scale_ = arrays["projection_mean"], arrays["projection_scale"]
    projection.feature_spaces_ = {name: slice(*c) for name, *c in about["Components"]}
    projection.n_features_in_ = about["NumberOfFeatures"]
    projection.projections_ = {
        name: (arrays[f"projection_offset{i}"], arrays[f"projection_matrix{i}"])
        if f"projection_matrix{i}" in arrays
        else None
        for i, name in enumerate(spaces)
    }
    return projection
