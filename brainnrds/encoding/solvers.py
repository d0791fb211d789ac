"""Banded ridge by an exact K-fold search: what is computed on all samples serves every fold.

With ``K`` the kernel of a mixture of feature spaces, ``G = (K + alpha I)^-1`` on all samples and
``f`` the samples of one fold, the residual of the fold under the model trained on all the others is

    y_f - prediction_f = [G_ff]^-1 (G y)_f

so no fold is ever trained. It follows from the inverse of a partitioned matrix and is the block
form of the leave-one-out residual ``(G y)_i / G_ii`` [1]_ [2]_. Where samples are left out of
training without being tested, such as a gap beside the tested ones, ``f`` holds them as well and
their residuals are not counted. With an intercept that is not penalised,
``M = G - G 1 1' G / (1' G 1)``, the upper left block of the inverse of
``[[K + alpha I, 1], [1', 0]]``, takes the place of ``G`` [3]_.

``G`` comes from one eigendecomposition per mixture, ``K = U diag(lambda) U'``, or, on a GPU, from
one inverse per mixture and alpha, which is all products. The residuals of all folds are ``B z``,
``B`` of shape (n_samples, n_samples) and ``z = U'y`` or ``z = y``; the error of a target is the
quadratic form ``z' B'B z``. Its upper triangle takes half the operations of the residuals, which is
where the time of a search over many targets goes. The forms of many alphas span few dimensions, and
only as many are multiplied as rounding can tell apart. On a CPU, where targets are many, forms are
turned from ``z = U'y`` to ``y``, which is the same for all mixtures: their forms then span fewer
dimensions together.

References
----------
.. [1] Wahba G (1990). Spline models for observational data. SIAM. Chapter 4.
.. [2] Rifkin RM, Lippert RA (2007). Notes on regularized least squares. MIT-CSAIL-TR-2007-025.
.. [3] Cawley GC, Talbot NLC (2004). Fast exact leave-one-out cross-validation of sparse
   least-squares support vector machines. Neural Networks 17(10).
.. [4] Robbins H (1956). An empirical Bayes approach to statistics. Proceedings of the Third
   Berkeley Symposium on Mathematical Statistics and Probability 1, 157-163.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import gammaincinv
from scipy.stats import qmc
from sklearn.utils import check_random_state
from torch.nn import functional

from brainnrds._checks import InputError
from brainnrds.encoding._arrays import one_blas_thread
from brainnrds.encoding._fold_errors import (
    ALIGNMENT,
    DualErrors,
    Kernels,
    Once,
    PrimalErrors,
    eigh,
    is_out_of_memory,
    product,
    to_host,
)
from brainnrds.encoding._inputs import (
    check_alphas,
    check_arrays,
    check_choice,
    check_devices,
    check_folds,
    check_kernels_of,
    check_mixtures,
    check_symmetric,
    check_targets,
)
from brainnrds.encoding._memory import free_memory

__all__ = [
    "BandedRidgeResult",
    "sample_mixtures",
    "solve_banded_ridge",
]

# equal scores go to the larger alpha, as in himalaya's `_select_best_alphas`
_TIE_SLOPE = 1e-10
# targets from which the prior is pooled, and how: neighbours in time are not independent, and by
# simulation (tests/prove/prove_mixtures.py) two samples count as one
_POOLED_TARGETS = 1024
_EM_STEPS = 100
_SMALLEST_PRIOR = 1e-6
_SAMPLES_PER_OBSERVATION = 2
# working memory of a batch of targets: on a CPU what stays near the cache
_TARGET_BYTES = {"cpu": 3 * 2**22, "cuda": 3 * 2**28}


@dataclass(frozen=True)
class BandedRidgeResult:
    """What a banded-ridge search found, in arrays of the inputs' kind (NumPy or torch).

    Attributes
    ----------
    mixtures : array of shape (n_mixtures, n_spaces)
        The mixtures that were offered.
    cv_scores : array of shape (n_mixtures, n_targets)
        Minus the mean squared error, averaged over folds, at each target's best alpha.
    mixture_index : int array of shape (n_targets,)
        The row of `mixtures` that scored best.
    alpha : array of shape (n_targets,)
    dual_weights : array of shape (n_samples, n_targets) or None
        The prediction is ``sum_i mixture[i] * K_i(test, train) @ dual_weights + intercept``.
    primal_weights : array of shape (n_features, n_targets) or None
        The prediction is ``concatenate(Xs, 1) @ primal_weights + intercept``.
    intercept : array of shape (n_targets,) or None
        None without `fit_intercept`.
    n_constant_targets : int
        Targets without variance: their weights are 0.
    mixture_prior : array of float64 of shape (n_mixtures,) or None
        What was given or pooled.
    form : {"dual", "primal"}
        How the search was done.
    """

    mixtures: object
    cv_scores: object
    mixture_index: object
    alpha: object
    dual_weights: object
    primal_weights: object
    intercept: object
    n_constant_targets: int
    mixture_prior: object
    form: str


def sample_mixtures(n_mixtures, n_spaces, *, concentration=1.0, random_state=None):
    """Mixtures of feature spaces that fill the simplex evenly.

    Two spaces get an even grid from one pure space to the other. More spaces get the equal
    mixture, each space alone, then a scrambled Sobol sequence, mapped to a symmetric Dirichlet
    distribution by the inverse of its gamma marginals.

    Parameters
    ----------
    n_mixtures : int
    n_spaces : int
    concentration : float, default=1.0
        Concentration of the Dirichlet distribution; below 1 prefers few spaces.
    random_state : int, RandomState or None

    Returns
    -------
    mixtures : array of float64 of shape (n_mixtures, n_spaces)
        Rows sum to 1.
    """
    if n_mixtures < 1 or n_spaces < 1 or concentration <= 0:
        raise InputError(
            "`n_mixtures` and `n_spaces` must be at least 1 and `concentration` above 0; got "
            f"{n_mixtures}, {n_spaces} and {concentration}."
        )
    if n_spaces == 2 and n_mixtures > 1:
        share = np.linspace(0, 1, n_mixtures)
        return np.stack([share, 1 - share], axis=1)
    fixed = np.concatenate([np.ones((1, n_spaces)), np.eye(n_spaces)])[:n_mixtures]
    n_drawn = n_mixtures - len(fixed)
    sobol = qmc.Sobol(n_spaces, seed=check_random_state(random_state).randint(2**31 - 1))
    uniform = sobol.random_base2(int(np.ceil(np.log2(max(n_drawn, 1)))))[:n_drawn]
    gammas = gammaincinv(concentration, np.clip(uniform, 1e-12, 1 - 1e-12))
    gammas = np.concatenate([fixed, np.maximum(gammas, 1e-300)])
    return gammas / gammas.sum(1, keepdims=True)


def solve_banded_ridge(
    Ks,
    Y,
    *,
    mixtures,
    alphas,
    cv=5,
    fit_intercept=False,
    local_alpha=True,
    mixture_prior=None,
    Xs=None,
    form="auto",
    return_weights="dual",
    products="auto",
    factors="auto",
    n_targets_batch=None,
    n_alphas_batch=None,
    device=None,
):
    """Choose a mixture of feature spaces and an alpha per target by exact cross-validation.

    Any folds will do: samples may be tested once, several times or never, and may be left out of
    training without being tested.

    Parameters
    ----------
    Ks : array of shape (n_spaces, n_samples, n_samples) or None
        One kernel per feature space, symmetric and positive semi-definite, float32 or float64;
        NumPy or torch. None: linear kernels of `Xs`.
    Y : array of shape (n_samples, n_targets)
        Targets, of the same kind, dtype and device.
    mixtures : array of shape (n_mixtures, n_spaces)
        Weights of the kernels, at least 0: ``sum_i mixture[i] * Ks[i]`` is the kernel of a mixture.
    alphas : array of shape (n_alphas,)
        Ridge penalties, above 0.
    cv : int, list of index arrays, list of (train, test) pairs or splitter, default=5
        The folds. An int cuts the samples into that many contiguous folds; index arrays name the
        test samples of each fold, which is predicted from all others. Folds may differ in size.
    fit_intercept : bool, default=False
        Without it, kernels and targets are taken to be centred.
    local_alpha : bool, default=True
        A mixture and an alpha per target; False: one mixture and one alpha for all targets.
    mixture_prior : "pooled" or array of shape (n_mixtures,), optional
        How probable each mixture is before a target's own scores are seen. The best of many
        mixtures is partly chance in a single target, and targets tell together which are common:
        "pooled" finds that by empirical Bayes (Robbins 1956), on up to 1,024 targets. Each target
        gets the mixture that is nearest to its posterior mean. None: its best score decides.
        Without effect where `local_alpha` is False.
    Xs : list of arrays of shape (n_samples, n_features_i), optional
        The features whose linear kernels `Ks` are: for the primal form and primal weights.
    form : {"auto", "dual", "primal"}, default="auto"
        "auto" takes the form with fewer operations: the primal one where `Xs` are given and have
        clearly fewer features than samples.
    return_weights : {"dual", "primal", None}, default="dual"
        None skips the refit.
    products : {"auto", "float32", "tf32", "bf16"}, default="auto"
        Precision of the large products of the search for float32 inputs; factors, the projection
        on eigenvectors, the diagonal of the error form and the refit stay in float32 or above.
        "auto" is TF32 on CUDA and float32 on a CPU, which has no TF32. See Notes.
    factors : {"auto", "float32", "float64"}, default="auto"
        Precision of eigendecompositions and fold blocks for float32 inputs. "auto" is float32, and
        float64 for those alphas that are below 1e-3 times the largest eigenvalue (1e-4 times on
        CUDA, where inverses take the place of eigenvectors), with a warning.
    n_targets_batch : int, optional
        Targets at a time; by default chosen from free memory, and halved when memory runs out.
    n_alphas_batch : int, optional
        Alphas at a time; likewise. Where it is given, mixtures are searched one by one.
    device : str or sequence of str, optional
        Where to compute: by default where the inputs are. "auto" is every CUDA device, else the
        CPU. Mixtures are dealt out to several devices.

    Returns
    -------
    result : BandedRidgeResult

    Raises
    ------
    ValueError
        For kernels that are not symmetric, not finite or not positive semi-definite, alphas that
        are not above 0, empty folds, mixed kinds, dtypes or
        devices.

    Notes
    -----
    Scores and selection are those of himalaya's `solve_multiple_kernel_ridge_random_search` with
    the same mixtures, alphas and folds, without its score of -1e5 for alphas that its float
    precision cannot resolve, and without the 1e-10 log(alpha) by which it breaks ties: ties go to
    the larger alpha here as well, but the scores are pure. Its dual weights are `dual_weights`
    times `alpha`.

    Largest differences of the scores of unit-variance targets from float64: about 1e-6 in float32,
    1e-4 with TF32 products, 5e-4 with bfloat16 ones, for alphas near the selected ones.
    """
    export = _Export(Ks if Xs is None else Xs[0])
    Ks, Xs, Y = check_arrays(Ks, Xs, Y)
    devices = check_devices(device, Y.device)
    if Ks is not None:
        Ks = Ks.to(devices[0])  # once, for the check as well
        check_symmetric(Ks)
        # with an intercept either may be centred
        if Xs is not None and not fit_intercept:
            check_kernels_of(Xs, Ks)
    n_samples, n_targets = Y.shape
    n_spaces = len(Xs) if Ks is None else len(Ks)
    mixtures = check_mixtures(mixtures, n_spaces)
    alphas = torch.as_tensor(check_alphas(alphas))
    check_choice("form", form, ("auto", "dual", "primal"))
    check_choice("return_weights", return_weights, ("dual", "primal", None))
    if isinstance(mixture_prior, str):
        check_choice("mixture_prior", mixture_prior, ("pooled",))
    check_choice("products", products, ("auto", "float32", "tf32", "bf16"))
    check_choice("factors", factors, ("auto", "float32", "float64"))
    if Xs is None and "primal" in (form, return_weights):
        raise InputError("The primal form and primal weights need the features `Xs`; got None.")
    constant = check_targets(Y)
    folds = check_folds(cv, n_samples)
    say = Once()
    if form == "auto":
        form = _cheaper_form(Xs, folds, n_samples, n_targets, len(alphas))
    if Ks is None and form == "dual":
        at = torch.device(devices[0])
        Ks = torch.stack([product(X.to(at), X.to(at).T) for X in Xs])
    single = Y.dtype == torch.float32
    on_cuda = devices[0].startswith("cuda")
    options = _Options(
        fit_intercept=fit_intercept,
        products={"auto": "tf32" if on_cuda else "float32"}.get(products, products)
        if single
        else "float64",
        factors=factors if single else "float64",
        n_targets_batch=n_targets_batch,
        n_alphas_batch=n_alphas_batch,
        weights=return_weights is not None,
        say=say,
    )
    found = _Selection(mixtures, n_targets, alphas, Y.dtype, local_alpha)
    searches = []
    if len(devices) > 1 and on_cuda:
        # torch.linalg loads its library at first use, which fails from several threads at once
        torch.linalg.inv(torch.eye(2, device=devices[0]))
    for name in devices:
        at = torch.device(name)
        if form == "primal":
            searches.append(PrimalErrors(Xs, folds, found.mixtures, alphas, at, options))
        else:
            kernels = Kernels(Ks, found.mixtures, float(alphas.min()), at, options)
            searches.append(DualErrors(kernels, folds, alphas, n_targets, options))
    targets = [_Targets(Y, search.device, options, search.n_rows) for search in searches]
    fit = _DualFit(targets) if form == "dual" and return_weights is not None else None
    streams = [
        _score_mixtures(searches[k], targets[k], indices, found.choose)
        for k, indices in enumerate(found.deal_out(len(searches)))
    ]
    for search, index, prepared, scores, choice in _in_turn(streams):
        better = found.add(index, scores, choice)
        if fit is not None:
            fit.update(search, index, prepared, better, choice)

    if mixture_prior is not None and local_alpha:
        n_tested = sum(len(test) for test, _ in folds)
        if isinstance(mixture_prior, str):
            mixture_prior = found.pool(n_tested)
        changed = found.choose_again(mixture_prior, n_tested)
        if fit is not None:
            fit.is_current[changed] = False

    weights = intercept = None
    if return_weights is not None:
        if form == "primal":
            weights, intercept = _refit_primal(Xs, targets[0], found, options)
            if return_weights == "dual":
                weights = _dual_of_primal(Xs, Y, weights, intercept, found.alpha)
        else:
            kernels = [search.kernels for search in searches]
            fit.complete(kernels, found.mixture_index, found.alpha)
            weights, intercept = fit.weights, fit.intercept
            if return_weights == "primal":
                weights = _primal_of_dual(Xs, weights, found, targets[0])
            weights = to_host(weights) if Y.device.type == "cpu" else weights.to(Y.device)
        weights[:, constant] = 0
        if intercept is not None:
            intercept[constant] = Y[0, constant]
    return BandedRidgeResult(
        mixtures=export(found.mixtures.to(Y.dtype)),
        cv_scores=export(found.cv_scores),
        mixture_index=export(found.mixture_index),
        alpha=export(found.alpha),
        dual_weights=export(weights) if return_weights == "dual" else None,
        primal_weights=export(weights) if return_weights == "primal" else None,
        intercept=export(intercept),
        n_constant_targets=int(constant.sum()),
        mixture_prior=None if mixture_prior is None else np.asarray(mixture_prior),
        form=form,
    )


@dataclass(frozen=True)
class _Options:
    fit_intercept: bool
    products: str
    factors: str
    n_targets_batch: int | None
    n_alphas_batch: int | None
    weights: bool
    say: Callable


class _Export:
    """Bring results to the kind and the device of the inputs."""

    def __init__(self, like):
        self.device = like.device if isinstance(like, torch.Tensor) else None

    def __call__(self, tensor):
        if tensor is None:
            return None
        return tensor.cpu().numpy() if self.device is None else tensor.to(self.device)


class _Targets:
    """Targets in batches on a device; they stay where they are when they do not fit.

    With as many rows as padded kernels have. Where they are kept on a device, their rows start at
    aligned addresses.
    """

    def __init__(self, Y, device, options, n_rows):
        self.device = device
        self.options = options
        self.shape = Y.shape
        self.home = Y.device
        self.dtype = Y.dtype
        self.mean = Y.mean(0) if options.fit_intercept else None
        self.n_rows = n_rows
        self.multiple = ALIGNMENT[device.type]
        is_aligned = len(Y) == n_rows and Y.stride(0) % self.multiple == 0
        if (is_aligned and Y.device == device) or Y.nbytes > 0.4 * free_memory(device):
            self.Y = Y
            return
        n_columns = Y.shape[1] + -Y.shape[1] % self.multiple
        self.Y = torch.zeros(n_rows, n_columns, dtype=Y.dtype, device=device)[:, : Y.shape[1]]
        self.Y[: len(Y)] = Y

    def take(self, which):
        """Return the targets of a slice or index on the device, centred if an intercept is fitted.

        Centring changes no residual of a fit with intercept, but spares rounding errors.
        """
        Y = self.Y[:, which].to(self.device)
        if self.mean is not None:
            Y = Y - self.mean[which].to(self.device)
            Y[self.shape[0] :] = 0
        return functional.pad(Y, (0, 0, 0, self.n_rows - len(Y))) if len(Y) < self.n_rows else Y

    def in_batches(self, n_targets, bytes_per_target, work):
        """Call ``work(start, stop)`` over the targets, in smaller batches when memory runs out.

        On a CPU, threads share the batches.
        """
        room = min(_TARGET_BYTES[self.device.type], free_memory(self.device) / 4)
        batch = self.options.n_targets_batch or max(1, int(room / bytes_per_target))
        if batch > self.multiple:
            batch -= batch % self.multiple
        n_threads = torch.get_num_threads() if self.device.type == "cpu" else 1
        start = 0
        while start < n_targets:
            try:
                if n_threads > 1:
                    _share(work, n_targets, min(batch, -(-n_targets // n_threads)), n_threads)
                    return
                stop = min(start + batch, n_targets)
                work(start, stop)
                start = stop
                continue
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or batch == 1:
                    raise
            batch, n_threads = max(1, batch // 2), 1
            self.options.say("Memory ran out; the work goes on with fewer targets at a time.")
            if self.device.type == "cuda":
                torch.cuda.empty_cache()


def _share(work, n_targets, batch, n_threads):
    """Call ``work(start, stop)`` over the targets in threads, each of which computes alone.

    With one thread for each core torch and NumPy would wait for each other, busily.
    """
    starts = range(0, n_targets, batch)
    own = {"initializer": torch.set_num_threads, "initargs": (1,)}
    try:
        with one_blas_thread(), ThreadPoolExecutor(n_threads, **own) as threads:
            list(threads.map(lambda start: work(start, min(start + batch, n_targets)), starts))
    finally:
        torch.set_num_threads(n_threads)


class _Selection:
    """The best mixture and alpha so far, merged in the order of the mixtures."""

    def __init__(self, mixtures, n_targets, alphas, dtype, local_alpha):
        self.mixtures = mixtures
        self.alphas = alphas
        self.local_alpha = local_alpha
        self.cv_scores = torch.full((len(mixtures), n_targets), torch.nan, dtype=dtype)
        self.best = torch.full((n_targets,), -torch.inf, dtype=dtype)
        self.mixture_index = torch.zeros(n_targets, dtype=torch.int64)
        self.alpha = alphas.max().to(dtype).repeat(n_targets)
        self.alpha_index = torch.zeros(len(mixtures), n_targets, dtype=torch.int16)

    def deal_out(self, n_hands):
        """Return the indices of the mixtures to search, in turn for every hand."""
        return [range(k, len(self.mixtures), n_hands) for k in range(n_hands)]

    def choose(self, scores):
        """Scores of every alpha (n_alphas, n_targets) -> the best alpha's score and index."""
        # ties go to the larger alpha
        ranked = scores.double()
        ranked += _TIE_SLOPE * self.alphas.log().to(scores.device)[:, None]
        if self.local_alpha:
            choice = ranked.argmax(0)
        else:
            choice = ranked.mean(1).argmax().expand(scores.shape[1])
        return scores.gather(0, choice[None])[0].cpu(), choice.cpu()

    def add(self, index, scores, choice):
        """Take a mixture for the targets where it scores better; tell which these are."""
        tolerance = torch.finfo(scores.dtype).eps
        if self.local_alpha:
            better = scores > self.best + tolerance
        else:
            better = (scores.mean() > self.best.mean() + tolerance).expand(len(scores))
        self.best = torch.where(better, scores, self.best)
        self.mixture_index[better] = index
        self.alpha = torch.where(better, self.alphas.to(self.alpha)[choice], self.alpha)
        self.cv_scores[index] = scores
        self.alpha_index[index] = choice.to(torch.int16)
        return better

    def pool(self, n_tested):
        """How common each mixture is among targets from everywhere: its share by EM."""
        n_targets = self.cv_scores.shape[1]
        some = np.unique(np.linspace(0, n_targets - 1, _POOLED_TARGETS).astype(int))
        evidence = self.evidence(some, n_tested)
        prior = torch.full((len(evidence), 1), 1 / len(evidence), dtype=torch.float64)
        for _ in range(_EM_STEPS):
            prior = (prior.log() + evidence).softmax(0).mean(1, keepdim=True)
            prior = prior.clamp_min(_SMALLEST_PRIOR)
        return (prior / prior.sum())[:, 0].numpy()

    def evidence(self, some, n_tested):
        """Log-likelihood of every mixture, of errors as of left-out Gaussian noise."""
        errors = (-self.cv_scores[:, some].double()).clamp_min(1e-30)
        return -n_tested / _SAMPLES_PER_OBSERVATION / 2 * errors.log()

    def choose_again(self, prior, n_tested):
        """Choose the mixtures nearest to the posterior means; tell where the choice changed."""
        prior = torch.as_tensor(np.asarray(prior, dtype=np.float64))[:, None]
        if len(prior) != len(self.mixtures) or not (prior > 0).all():
            raise InputError(
                "`mixture_prior` must be 'pooled' or have one value above 0 for each of "
                f"{len(self.mixtures)} mixtures; got {prior[:, 0].tolist()}."
            )
        posterior = (prior.log() + self.evidence(slice(None), n_tested)).softmax(0)
        shares = self.mixtures / self.mixtures.sum(1, keepdim=True)
        distance = shares.square().sum(1, keepdim=True) - 2 * shares @ (shares.T @ posterior)
        index = distance.argmin(0)
        changed = index != self.mixture_index
        self.mixture_index = index
        chosen = self.alpha_index.gather(0, index[None])[0].long()
        self.alpha = torch.where(changed, self.alphas.to(self.alpha)[chosen], self.alpha)
        return changed


def _score_mixtures(search, targets, indices, choose):
    """Yield (search, mixture, prepared, score of the best alpha, its index) of every mixture.

    Prepared are the last alphas of the mixture: all of them if they fit in memory at once.
    """
    shape, where = (len(search.alphas), targets.shape[1]), {"device": search.device}
    scores = torch.empty(0, *shape, dtype=targets.dtype, **where)
    for prepared in search.prepare(indices):
        if len(scores) < len(prepared.indices):
            scores = torch.empty(len(prepared.indices), *shape, dtype=targets.dtype, **where)
        now = scores[: len(prepared.indices), prepared.first : prepared.last].flatten(0, 1)
        with torch.profiler.record_function("products"):
            _score_alphas(search, targets, prepared, now)
        if prepared.last == len(search.alphas):
            for index, found in zip(prepared.indices, scores, strict=False):
                yield search, index, prepared, *choose(found)


def _score_alphas(search, targets, prepared, scores):
    def work(start, stop):
        errors = search.errors(prepared, targets.take(slice(start, stop)))
        torch.neg(errors, out=scores[:, start:stop])

    targets.in_batches(targets.shape[1], search.target_bytes, work)


def _in_turn(streams):
    """Interleave generators, each advanced on a thread of its own when there are several."""
    if len(streams) == 1:
        yield from streams[0]
        return
    with ThreadPoolExecutor(len(streams)) as pool:
        while streams:
            results = list(pool.map(lambda stream: next(stream, None), streams))
            yield from (result for result in results if result is not None)
            streams = [s for s, result in zip(streams, results, strict=True) if result is not None]


class _DualFit:
    """Dual weights (n_samples, n_targets) of chosen mixtures and alphas, and the intercept.

    Where a search has inverses and the weights fit on the first device, they are computed as the
    search goes, for the targets that a mixture suits best so far: a few times per target. All
    others are computed at the end, from one eigendecomposition for every mixture that was chosen.
    """

    def __init__(self, targets):
        self.targets = targets
        self.home, dtype = targets[0].home, targets[0].dtype
        # columns are written in the order of the mixtures: fast on a GPU, slow on a host
        self.fits = targets[0].Y.nbytes < free_memory(targets[0].device) / 4
        self.place = targets[0].device if self.fits else self.home
        self.weights = torch.zeros(targets[0].shape, dtype=dtype, device=self.place)
        self.intercept = None
        if targets[0].options.fit_intercept:
            self.intercept = torch.zeros(targets[0].shape[1], dtype=dtype, device=self.home)
        self.is_current = torch.zeros(targets[0].shape[1], dtype=torch.bool)

    def update(self, search, index, prepared, better, alpha_index):
        """Fit the targets that are `better` with the prepared mixture, if that is cheap."""
        self.is_current[better] = False
        is_whole = prepared.inverses is not None and prepared.first == 0
        if not is_whole or not self.fits:
            return
        targets = next(one for one in self.targets if one.device == search.device)
        row_means = search.kernels.row_means(index)
        for alpha in torch.unique(alpha_index[better]).tolist():
            chosen = (better & (alpha_index == alpha)).nonzero()[:, 0]

            def work(start, stop, alpha=alpha, chosen=chosen):
                which = chosen[start:stop].to(self.home)
                weights = search.weights(prepared, alpha, targets.take(which))
                self._write(which, weights, row_means, targets)

            with torch.profiler.record_function("refit"):
                targets.in_batches(len(chosen), 4 * len(row_means) * row_means.itemsize, work)
        self.is_current |= better

    def complete(self, kernels, mixture_index, alpha):
        """Fit the targets that are left."""
        left = ~self.is_current
        for index in torch.unique(mixture_index[left]).tolist():
            chosen = (left & (mixture_index == index)).nonzero()[:, 0]
            # the device that decomposed this mixture has kept its eigenvectors
            turn = next((k for k, one in enumerate(kernels) if one.has(index)), 0)
            with torch.profiler.record_function("refit"):
                self._fit_mixture(kernels[turn], self.targets[turn], index, chosen, alpha)

    def _fit_mixture(self, kernels, targets, index, chosen, alpha):
        values, vectors = kernels.factor(index)
        ones = vectors[: kernels.n_samples].sum(0)[:, None]
        row_means = kernels.row_means(index).to(vectors)

        def work(start, stop):
            which = chosen[start:stop].to(self.home)
            gain = 1 / (values[:, None] + alpha[chosen[start:stop]].to(vectors))
            projected = product(vectors.T, targets.take(which).to(vectors))
            if self.intercept is not None:
                edge = ones * gain
                projected -= ones * ((edge * projected).sum(0) / (edge * ones).sum(0))
            weights = product(vectors, projected.mul_(gain))
            self._write(which, weights, row_means, targets)

        targets.in_batches(len(chosen), 5 * len(values) * values.dtype.itemsize, work)

    def _write(self, which, weights, row_means, targets):
        self.weights[:, which.to(self.place)] = weights[: len(self.weights)].to(self.weights)
        if self.intercept is not None:
            lift = (row_means @ weights).to(self.intercept)
            self.intercept[which] = targets.mean[which] - lift


def _refit_primal(Xs, targets, found, options):
    """Primal weights (n_features, n_targets) of the selection, and the intercept."""
    X = torch.cat(list(Xs), 1).to(targets.device).double()
    mean = X.mean(0)
    if options.fit_intercept:
        X = X - mean
    gram = X.T @ X
    sizes = torch.tensor([one.shape[1] for one in Xs])
    primal_weights = torch.zeros(
        X.shape[1], targets.shape[1], dtype=targets.dtype, device=targets.home
    )
    for index in torch.unique(found.mixture_index).tolist():
        chosen = (found.mixture_index == index).nonzero()[:, 0]
        scale = torch.repeat_interleave(found.mixtures[index].sqrt(), sizes).to(X)
        values, vectors = eigh(scale[:, None] * gram * scale, torch.float64, options.say)
        into = scale[:, None] * vectors
        with torch.profiler.record_function("refit"):
            _refit_primal_mixture(X, values, into, chosen, found.alpha, targets, primal_weights)
    intercept = None
    if options.fit_intercept:
        intercept = targets.mean - mean.to(targets.home, targets.dtype) @ primal_weights
    return primal_weights, intercept


def _refit_primal_mixture(X, values, into, chosen, alpha, targets, primal_weights):
    home = primal_weights.device

    def work(start, stop):
        which = chosen[start:stop].to(home)
        gain = 1 / (values[:, None] + alpha[chosen[start:stop]].to(X))
        weights = into @ (gain * (into.T @ (X.T @ targets.take(which).to(X))))
        primal_weights[:, which] = weights.to(primal_weights)

    targets.in_batches(len(chosen), 3 * len(X) * X.dtype.itemsize, work)


def _dual_of_primal(Xs, Y, primal_weights, intercept, alpha):
    """Dual weights are the residuals of the fit divided by alpha."""
    weights = primal_weights.double()
    dual_weights = torch.empty_like(Y)
    for start in range(0, Y.shape[1], 4096):
        some = slice(start, start + 4096)
        rows = 0
        fitted = 0
        for X in Xs:
            fitted = fitted + X.double() @ weights[rows : rows + X.shape[1], some]
            rows += X.shape[1]
        residual = Y[:, some].double() - fitted
        if intercept is not None:
            residual -= residual.mean(0)
        dual_weights[:, some] = (residual / alpha[some].to(residual)).to(Y.dtype)
    return dual_weights


def _primal_of_dual(Xs, dual_weights, found, targets):
    """Primal weights of a space are its features times the dual ones, times its share."""
    at = targets.device
    shares = found.mixtures.to(dual_weights.dtype)[found.mixture_index].T.to(at)
    sizes = [X.shape[1] for X in Xs]
    primal_weights = dual_weights.new_empty(sum(sizes), dual_weights.shape[1])
    Xs = [X.T.to(at) for X in Xs]

    def work(start, stop):
        some = dual_weights[:, start:stop].to(at)
        for rows, X, share in zip(primal_weights.split(sizes), Xs, shares, strict=True):
            rows[:, start:stop] = product(X, some).mul_(share[start:stop])

    bytes_per_target = (len(dual_weights) + len(primal_weights)) * dual_weights.itemsize
    targets.in_batches(dual_weights.shape[1], bytes_per_target, work)
    return primal_weights


def _cheaper_form(Xs, folds, n_samples, n_targets, n_alphas):
    """Compare the operations per target and alpha of the two forms."""
    if Xs is None:
        return "dual"
    n_features = sum(X.shape[1] for X in Xs)
    rows = sum(min(len(test), n_features + 1) for test, _ in folds)
    reduction = 4 * n_samples * n_features + 2 * len(folds) * n_features**2
    primal = 2 * rows * n_features + reduction / n_alphas
    dual = (1.1 if n_targets > 1.3 * n_samples else 2) * n_samples**2
    return "primal" if n_features < n_samples and primal < dual else "dual"
