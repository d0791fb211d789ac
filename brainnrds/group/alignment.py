"""Functional alignment: responses to the same films say what corresponds in two brains."""

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from brainnrds._checks import InputError
from brainnrds.group.shared_response import fit_basis, shared_response

__all__ = ["ALIGNMENTS", "FunctionalAlignment"]

#: Names of methods here -> in fmralign; None: our own.
ALIGNMENTS = {
    "procrustes": "procrustes",
    "ridge": "ridge",
    "optimal-transport": "ot",
    "srm": None,
}
_LARGEST_PARCEL = 2000  # a transform has the square of this many numbers


class FunctionalAlignment(BaseEstimator):
    """Bring people to a template, and the template to a new person, parcel by parcel.

    What is fitted says which voxels of a person go with which of the template, from responses to
    the same moments of the same films. To test films a fitted alignment is only applied: fitted on
    them, it would carry their noise from person to person. Transforms between voxels are those of
    fmralign (extra ``alignment``); the shared response model needs nothing.

    Parameters
    ----------
    method : {"procrustes", "ridge", "optimal-transport", "srm"}, default="procrustes"
        A rotation and a scale [1]_, ridge regression with its penalty chosen inside the training
        films, transport of voxels [2]_, or the shared response model
        (:func:`brainnrds.group.shared_response`), whose template has `n_features` time courses for
        each parcel in place of its voxels.
    parcels : array of int of shape (n_voxels,) or None, default=None
        Voxels are aligned with those of their parcel alone; 0: left as they are. None: one parcel
        of all, which must not have more than 2,000 voxels.
    n_iter : int, default=2
        Rounds of aligning people to the mean of all, and taking the mean again; not of "srm".
    n_features : int, default=10
        Of "srm": time courses of a parcel, fewer where it has fewer voxels.
    n_jobs : int, default=1
        Parcels at a time.

    Attributes
    ----------
    template_ : array of shape (n_samples, n_voxels)
        Mean of the aligned people; of "srm" (n_samples, n_template): shared time courses, parcel
        by parcel, then the voxels without a parcel.
    transforms_ : list
        Of each person to the template.

    References
    ----------
    .. [1] Haxby JV, et al. (2011). A common, high-dimensional model of the representational space
       in human ventral temporal cortex. Neuron 72, 404-416.
    .. [2] Bazeille T, Richard H, Janati H, Thirion B (2019). Local optimal transport for functional
       brain template estimation. IPMI 2019, 237-248.
    """

    def __init__(self, method="procrustes", *, parcels=None, n_iter=2, n_features=10, n_jobs=1):
        self.method = method
        self.parcels = parcels
        self.n_iter = n_iter
        self.n_features = n_features
        self.n_jobs = n_jobs

    def fit(self, bold):
        """Make the template.

        Parameters
        ----------
        bold : list of arrays of shape (n_samples, n_voxels)
            Of people, row by row the same moment of the same film: training films alone.

        Returns
        -------
        self : FunctionalAlignment
        """
        bold = _check_bold(bold)
        parcels = self._check_parcels(bold[0].shape[1])
        if self.method == "srm":
            return self._fit_shared(bold, parcels)
        template = np.mean(bold, axis=0)
        for _ in range(self.n_iter):
            transforms = [self._pair(person, template) for person in bold]
            aligned = zip(transforms, bold, strict=True)
            template = np.mean([transform(person) for transform, person in aligned], axis=0)
        self.transforms_, self.template_ = transforms, template
        return self

    def transform(self, bold):
        """Bring the people of the fit to the template.

        Parameters
        ----------
        bold : list of arrays of shape (n_samples, n_voxels)
            In the order of the fit, of any films.

        Returns
        -------
        aligned : list of arrays of the template's width
        """
        check_is_fitted(self, "template_")
        if len(bold) != len(self.transforms_):
            raise InputError(
                f"`bold` must hold the {len(self.transforms_)} people of the fit; got {len(bold)}."
            )
        return [f(np.asarray(person)) for f, person in zip(self.transforms_, bold, strict=True)]

    def to_person(self, bold, *, rows=None):
        """Find what leads from the template to a person, who may be a new one.

        Parameters
        ----------
        bold : array of shape (n_rows, n_voxels)
            Of the person: training films alone.
        rows : int array of shape (n_rows,), default=None
            Which samples of the template these are. None: all.

        Returns
        -------
        transform : callable
            Array of shape (n_samples, n_template) in the template's space -> in the person's.
        """
        check_is_fitted(self, "template_")
        template = self.template_ if rows is None else self.template_[rows]
        if self.method == "srm":
            return self._from_shared(template, bold)
        template, bold = _check_bold([template, bold])
        return self._pair(template, bold)

    def _fit_shared(self, bold, parcels):
        """Shared time courses of every parcel."""
        self._alone = np.flatnonzero(parcels == 0)
        self._parts, found, start = [], [], 0
        for parcel in np.unique(parcels[parcels > 0]):
            voxels = np.flatnonzero(parcels == parcel)
            n_features = min(self.n_features, len(voxels), len(bold[0]))
            found.append(shared_response([person[:, voxels] for person in bold], n_features))
            self._parts.append((voxels, slice(start, start := start + n_features)))
        alone = np.mean([person[:, self._alone] for person in bold], axis=0)
        self.template_ = np.hstack([*(shared for shared, _ in found), alone])

        def to_template(bases):
            def transform(values):
                parts = [values[:, v] @ w for (v, _), w in zip(self._parts, bases, strict=True)]
                return np.hstack([*parts, values[:, self._alone]])

            return transform

        of_people = zip(*(bases for _, bases in found), strict=True)
        self.transforms_ = [to_template(bases) for bases in of_people]
        return self

    def _from_shared(self, template, bold):
        """From shared time courses to the voxels of a person."""
        [bold] = _check_bold([bold], fewest=1)
        n_voxels = len(self._alone) + sum(len(voxels) for voxels, _ in self._parts)
        if bold.shape != (len(template), n_voxels):
            raise InputError(
                f"`bold` must have shape ({len(template)}, {n_voxels}), as in the fit; got "
                f"{bold.shape}."
            )
        bases = [fit_basis(bold[:, voxels], template[:, here]) for voxels, here in self._parts]

        def transform(values):
            values = np.asarray(values, dtype=np.float64)
            moved = np.empty((len(values), n_voxels))
            moved[:, self._alone] = values[:, values.shape[1] - len(self._alone) :]
            for (voxels, here), basis in zip(self._parts, bases, strict=True):
                moved[:, voxels] = values[:, here] @ basis.T
            return moved

        return transform

    def _check_parcels(self, n_voxels):
        """Check method and parcels; return the label of each voxel."""
        if self.method not in ALIGNMENTS:
            raise InputError(
                f"`method` must be one of {', '.join(ALIGNMENTS)}; got {self.method!r}."
            )
        parcels = np.ones(n_voxels, int) if self.parcels is None else np.asarray(self.parcels)
        if parcels.shape != (n_voxels,):
            raise InputError(f"`parcels` must have shape ({n_voxels},); got {parcels.shape}.")
        largest = np.bincount(parcels[parcels > 0], minlength=1).max()
        if largest > _LARGEST_PARCEL:
            raise InputError(
                f"`parcels` must have at most {_LARGEST_PARCEL} voxels each; got {largest}: give "
                "an atlas with smaller parcels."
            )
        return parcels

    def _pair(self, source, target):
        """What leads from one array to another, as a function."""
        parcels = self._check_parcels(source.shape[1])
        try:
            from fmralign import PairwiseAlignment
        except ImportError as error:
            raise ImportError("alignment needs fmralign: pip install 'brainnrds[alignment]'") from (
                error
            )
        aligned = parcels > 0
        pair = PairwiseAlignment(
            ALIGNMENTS[self.method], labels=parcels[aligned], n_jobs=self.n_jobs
        ).fit(source[:, aligned], target[:, aligned])

        def transform(values):
            moved = np.array(values, dtype=np.float64)
            moved[:, aligned] = pair.transform(moved[:, aligned])
            return moved

        return transform


def _check_bold(bold, *, fewest=2):
    shapes = list(dict.fromkeys(np.shape(person) for person in bold))
    if len(bold) < fewest or len(shapes) > 1 or len(shapes[0]) != 2:
        raise InputError(
            "`bold` must hold two people or more, of one shape (n_samples, n_voxels); got "
            f"{shapes}."
        )
    bold = [np.asarray(person, dtype=np.float64) for person in bold]
    if not all(np.isfinite(person).all() for person in bold):
        raise InputError("`bold` must be finite; got values that are not.")
    return bold
