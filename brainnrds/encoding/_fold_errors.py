"""Held-out squared errors of every fold and alpha for some mixtures of feature spaces.

The arithmetic behind `brainnrds.encoding.solvers`, where the formulas stand, on one device.
"""

import platform
import threading
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from brainnrds._checks import InputError
from brainnrds.encoding._memory import free_memory

# Which way to the fold blocks. A GPU is fast at products, and an eigendecomposition is a chain of
# small kernels there: 114 ms for 4,320 samples on an H100. A CPU takes it in its stride.
WAY = {"cpu": "eigenvectors", "cuda": "inverses"}
# alpha / largest eigenvalue down to which float32 factors keep the scores of unit-variance targets
# within 1e-4 of float64; at these ratios they leave up to 7e-5 and 3e-5 (1,000 samples, kernels
# with power-law spectra; less with flatter ones)
_FLOAT32_RATIO = {"eigenvectors": 1e-3, "inverses": 1e-4}
# the upper triangle in n blocks of rows costs (1 + 1 / n) / 2 of the full product; many where one
# product serves all alphas, few where each alpha has its own, or where small products are slow
_N_ERROR_BLOCKS = {"cpu": 20, "cuda": 10}
_N_FORM_BLOCKS = 4
# share of the largest singular value below which a combination of the forms of all alphas (scaled
# to one size) is left out: what rounding does to the products is larger. float64 keeps all
_SPAN_TOLERANCE = {"float32": 2e-6, "tf32": 2e-5, "bf16": 1e-4}
# alphas times samples, over targets, below which it pays to turn the forms of one mixture to the
# basis of the samples; below twice of it where several are searched together
_MOST_TURNED = 1
# of forms that are searched together, and what they take
_MOST_FORMS = 128
_TOGETHER_BYTES = 3 * 2**30
# up to this size a block is inverted by LAPACK or cuSOLVER, above it by products
_LEAF_SIZE = {"cpu": 64, "cuda": 256}
# up to this inner size a float32 product costs less than three TF32 ones and their operands
_SPLIT_SIZE = 1024
# size of the operands that are split at a time
_SPLIT_BYTES = 2**27
# what the size and the borders of matrices are multiples of: tensor cores read 16 bytes at a time,
# and products of matrices that start elsewhere take several times as long
ALIGNMENT = {"cpu": 1, "cuda": 8}
# working memory of the fold blocks made from eigenvectors: what stays near a CPU's cache
_BLOCK_BYTES = 2**24

_precision_lock = threading.Lock()


class Once:
    """Warn about each matter once."""

    def __init__(self):
        self._said = set()

    def __call__(self, message):
        if message not in self._said:
            self._said.add(message)
            warnings.warn(message, UserWarning, stacklevel=4)


def to_host(tensor):
    """Copy to the CPU; from CUDA by way of pinned memory, which is several times as fast."""
    if not tensor.is_cuda:
        return tensor
    host = torch.empty(tensor.shape, dtype=tensor.dtype)
    rows = max(1, 2**26 // max(1, tensor[:1].nbytes))
    stages = [torch.empty(tensor[:rows].shape, dtype=tensor.dtype, pin_memory=True) for _ in "ab"]
    copied = [None, None]
    parts = [slice(start, start + rows) for start in range(0, len(tensor), rows)]
    for k in range(len(parts) + 1):
        if k < len(parts):  # the next part is on its way while the last one is put in place
            part = tensor[parts[k]]
            stages[k % 2][: len(part)].copy_(part, non_blocking=True)
            copied[k % 2] = torch.cuda.current_stream(tensor.device).record_event()
        if k > 0:
            copied[(k - 1) % 2].synchronize()
            target = host[parts[k - 1]]
            target.copy_(stages[(k - 1) % 2][: len(target)])
    return host


def is_out_of_memory(error):
    """Tell an exhausted allocator from other errors; torch's CPU one has no type of its own."""
    return isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError)
        and ("not enough memory" in str(error) or "can't allocate memory" in str(error))
    )


@contextmanager
def _matmul_precision(precision):
    # the switch is process-global: held only while a product is launched
    matmul = torch.backends.cuda.matmul
    switch, value = (
        ("fp32_precision", {True: "tf32", False: "ieee"}[precision == "tf32"])
        if hasattr(matmul, "fp32_precision")
        else ("allow_tf32", precision == "tf32")
    )
    with _precision_lock:
        previous = getattr(matmul, switch)
        setattr(matmul, switch, value)
        try:
            yield
        finally:
            setattr(matmul, switch, previous)


def product(a, b, precision="float32"):
    """Matrix product, on CUDA in `precision` whatever the process-global switch says.

    "tf32x3" is nearly as precise as float32, and faster: each operand is the sum of what TF32 holds
    of it and of the rest, and three products of these parts leave out that of the two rests.
    """
    if a.device.type != "cuda" or a.dtype != torch.float32:
        return _numpy_product(a, b) if _suits_numpy(a, b) else a @ b
    if precision == "tf32x3":
        if a.shape[-1] > _SPLIT_SIZE:
            return _three_products(a, b)
        precision = "float32"
    with _matmul_precision(precision):
        return a @ b


def _suits_numpy(a, b):
    is_known = a.dtype == b.dtype and a.dtype in (torch.float32, torch.float64)
    is_plain = a.device.type == "cpu" and is_known and a.ndim == b.ndim == 2
    # with several threads each, NumPy and torch wait for each other, busily
    return is_plain and torch.get_num_threads() == 1 and not _is_intel()


@lru_cache(maxsize=1)
def _is_intel():
    """Whether MKL, torch's own choice, knows this CPU: on others it leaves out AVX-512."""
    about = Path("/proc/cpuinfo")
    maker = about.read_text(encoding="utf-8") if about.exists() else platform.processor()
    return "GenuineIntel" in maker


def _numpy_product(a, b):
    """``a @ b`` by NumPy's OpenBLAS, in the same memory."""
    return torch.from_numpy(np.matmul(a.numpy(), b.numpy()))


def _three_products(a, b):
    total = a.new_empty(*a.shape[:-1], b.shape[-1])
    b = b.expand(*a.shape[:-2], *b.shape[-2:])
    a, b, out = (array.reshape(-1, *array.shape[-2:]) for array in (a, b, total))
    for some in _few(a, b):
        (high, rest), (b_high, b_rest) = split_tf32(a[some]), split_tf32(b[some])
        with _matmul_precision("tf32"):
            torch.bmm(high, b_rest, out=out[some])
            out[some].baddbmm_(rest, b_high).baddbmm_(high, b_high)
    return total


def gram(a, precision="float32"):
    """``a' a``, as precise as `product`."""
    splits = a.device.type == "cuda" and a.dtype == torch.float32 and precision == "tf32x3"
    if not splits or a.shape[-2] <= _SPLIT_SIZE:
        return product(a.mT, a, precision)
    total = a.new_empty(*a.shape[:-2], a.shape[-1], a.shape[-1])
    a, out = (array.reshape(-1, *array.shape[-2:]) for array in (a, total))
    for some in _few(a):
        high, rest = split_tf32(a[some])
        with _matmul_precision("tf32"):
            cross = torch.bmm(high.mT, rest)
            torch.bmm(high.mT, high, out=out[some])
        out[some].add_(cross).add_(cross.mT)
    return total


def _few(*batches):
    """Slices of batches of matrices, small enough to be split at a time."""
    step = max(1, _SPLIT_BYTES // max(batch[:1].nbytes for batch in batches))
    return [slice(start, start + step) for start in range(0, len(batches[0]), step)]


def split_tf32(array):
    """Return the part of float32 numbers that TF32 holds exactly, and the rest."""
    high = (array.view(torch.int32) & ~0x1FFF).view(torch.float32)
    return high, array - high


def eigh(matrix, dtype, say):
    """Eigendecomposition in `dtype`, in float64 or on the CPU where that fails.

    Returns
    -------
    values : tensor of shape (n,)
        Ascending; what rounding made negative is 0.
    vectors : tensor of shape (n, n)
    """
    attempts = [(dtype, matrix.device), (torch.float64, matrix.device)]
    if matrix.device.type != "cpu":
        attempts.append((torch.float64, torch.device("cpu")))
    for attempt, (kind, device) in enumerate(attempts):
        if attempt:
            say(f"An eigendecomposition failed; it is repeated in {kind} on {device.type}.")
        try:
            values, vectors = torch.linalg.eigh(matrix.to(device, kind))
        except RuntimeError:  # no convergence, or no memory for the workspace
            continue
        if torch.isfinite(values).all():
            break
    else:
        raise InputError(f"The eigendecomposition of a {tuple(matrix.shape)} kernel failed.")
    if values[0] < -1e-4 * values[-1].abs():
        raise InputError(
            "`Ks` must be positive semi-definite; got a mixture with eigenvalues from "
            f"{float(values[0]):.3g} to {float(values[-1]):.3g}."
        )
    return values.clamp_min(0).to(matrix.device), vectors.to(matrix.device)


def invert_(matrices, say, precision="float32", leaf_size=None):
    """Invert symmetric positive definite matrices of shape (..., size, size) in place.

    By way of the inverse of the Cholesky factor, which is as stable as LAPACK's; in `precision`
    where products do the work.
    """
    leaf_size = leaf_size or _LEAF_SIZE[matrices.device.type]
    factors = torch.zeros_like(matrices)
    failed = _fill_inverse_factors(matrices, factors, precision, leaf_size)
    broken = matrices[failed]
    _fill_gram(factors, matrices, precision)
    if len(broken):
        say(
            "A fold block is singular to working precision: the smallest alphas are below what "
            "the kernel's rounding errors allow."
        )
        values, vectors = torch.linalg.eigh(broken)
        floor = torch.finfo(values.dtype).eps * values[..., -1:]
        matrices[failed] = (vectors / torch.maximum(values, floor)[..., None, :]) @ vectors.mT
    return matrices


def _fill_inverse_factors(matrices, factors, precision, leaf_size):
    """Write the inverses of the lower Cholesky factors into zeros; tell which failed."""
    size = matrices.shape[-1]
    if size <= leaf_size:
        factor, info = torch.linalg.cholesky_ex(matrices)
        failed = info > 0
        identity = torch.eye(size, dtype=matrices.dtype, device=matrices.device)
        factor = torch.where(failed[..., None, None], identity, factor)
        factors.copy_(torch.linalg.solve_triangular(factor, identity, upper=False))
        return failed
    half = _middle(size, leaf_size)
    first, second = factors[..., :half, :half], factors[..., half:, half:]
    failed = _fill_inverse_factors(matrices[..., :half, :half], first, precision, leaf_size)
    side = product(matrices[..., half:, :half], first.mT, precision)
    rest = matrices[..., half:, half:] - gram(side.mT, precision)
    failed = failed | _fill_inverse_factors(rest, second, precision, leaf_size)
    lower = product(product(second, side, precision), first, precision)
    factors[..., half:, :half] = lower.neg_()
    return failed


def _fill_gram(factors, out, precision):
    """Write ``W' W`` of lower triangular W, (..., size, size), into `out`.

    Without W's upper corner of zeros: half the operations.
    """
    size = factors.shape[-1]
    half = _middle(size, 8 if size >= 16 else 1)
    left, right = factors[..., :half], factors[..., half:, half:]
    out[..., :half, :half] = gram(left, precision)
    side = product(right.mT, left[..., half:, :], precision)
    out[..., half:, :half] = side
    out[..., :half, half:] = side.mT
    out[..., half:, half:] = gram(right, precision)


def _middle(size, multiple):
    """Where to cut a block in two: a multiple, so that the parts are aligned as the whole is."""
    return multiple * ((size + multiple) // (2 * multiple))


def by_size(folds, device):
    """Group folds of one size: list of (left_out, n_tested).

    `left_out` is an index tensor of shape (n_folds, size): the tested samples first, then those of
    the gap.
    """
    sizes = sorted({(len(test), len(gap)) for test, gap in folds})
    return [
        (
            torch.stack(
                [torch.cat(fold) for fold in folds if (len(fold[0]), len(fold[1])) == size]
            ).to(device),
            size[0],
        )
        for size in sizes
    ]


@dataclass
class Prepared:
    """What `errors` needs to score mixtures at alphas first to last: all where they are several."""

    indices: list
    first: int
    last: int
    operands: tuple | None
    # (n_alphas, n_samples, n_samples), where they are known and weights are asked for
    inverses: torch.Tensor | None = None

    def release(self):
        """Give the memory to the next ones."""
        self.operands = self.inverses = None


class Kernels:
    """Mixtures of kernels on one device, and their eigendecompositions.

    Kernels are padded to aligned sizes. The decompositions are kept for the refit as long as they
    take less than a quarter of the free memory of the device, then of the host.
    """

    def __init__(self, Ks, mixtures, smallest_alpha, device, options):
        self.device = device
        self.mixtures = mixtures
        self.say = options.say
        self.Ks = Ks.to(device)
        self.n_samples = Ks.shape[1]
        self._rows = self.Ks.mean(1)
        if options.fit_intercept:
            # the intercept makes the kernel's mean irrelevant: without it, less is rounded
            rows = self._rows[:, None]
            self.Ks = self.Ks - rows - rows.mT + rows.mean(2, keepdim=True)
        # samples that have nothing to do with any other, and are in no fold, change nothing
        extra = -self.n_samples % ALIGNMENT[device.type]
        if extra:
            self.Ks = functional.pad(self.Ks, (0, extra, 0, extra))
            self._rows = functional.pad(self._rows, (0, extra))
        self.n_rows = self.n_samples + extra
        self.sizes = self._largest_eigenvalues()
        self.dtype = {"float32": torch.float32, "float64": torch.float64}.get(options.factors)
        if self.dtype is None:
            ratio = smallest_alpha / max(float((mixtures @ self.sizes).max()), 1e-300)
            least = _FLOAT32_RATIO[WAY[device.type]]
            self.dtype = self.Ks.dtype if ratio >= least else torch.float64
            if self.dtype != self.Ks.dtype:
                self.say(
                    f"The smallest alpha is {ratio:.1g} times the largest eigenvalue: factors for "
                    f"alphas below {least:g} times are computed in float64."
                )
        self._kept = {}
        self._room = {place: free_memory(place) // 4 for place in {device, torch.device("cpu")}}

    def _largest_eigenvalues(self):
        # power iteration per space: an estimate of the size suffices
        vector = torch.linspace(-1, 2, self.Ks.shape[1], dtype=self.Ks.dtype, device=self.device)
        vector = vector.expand(len(self.Ks), -1)[..., None]
        for _ in range(8):
            norm = torch.linalg.vector_norm(vector, dim=1, keepdim=True)
            vector = self.Ks @ (vector / norm.clamp_min(torch.finfo(vector.dtype).tiny))
        return torch.linalg.vector_norm(vector, dim=1)[:, 0].cpu().double()

    def mixture(self, index):
        """Return the kernel of a mixture, (n_samples, n_samples)."""
        kernel = torch.zeros_like(self.Ks[0])
        for weight, K in zip(self.mixtures[index].tolist(), self.Ks, strict=True):
            kernel.add_(K, alpha=weight)
        return kernel

    def factor(self, index):
        """Return eigenvalues (n_samples,) and eigenvectors as columns of a mixture's kernel."""
        if index in self._kept:
            return tuple(part.to(self.device) for part in self._kept[index])
        with torch.profiler.record_function("eigendecomposition"):
            pair = eigh(self.mixture(index), self.dtype, self.say)
        for place in (self.device, torch.device("cpu")):
            if pair[1].nbytes <= self._room[place]:
                self._room[place] -= pair[1].nbytes
                self._kept[index] = tuple(part.to(place) for part in pair)
                break
        return pair

    def has(self, index):
        """Whether the eigendecomposition of this mixture is kept."""
        return index in self._kept

    def row_means(self, index):
        """Mean over training samples of a mixture's kernel as given, (n_samples,)."""
        return self.mixtures[index].to(self._rows) @ self._rows


class DualErrors:
    """Errors by the closed form, from an eigendecomposition of every mixture or from inverses."""

    def __init__(self, kernels, folds, alphas, n_targets, options):
        self.device = kernels.device
        self.kernels = kernels
        self.options = options
        self.alphas = alphas.to(self.device)
        self.n_folds = len(folds)
        self.groups = by_size(folds, self.device)
        self.dtype = kernels.Ks.dtype
        self.inverts = WAY[self.device.type] == "inverses"
        # bfloat16 serves the off-diagonal products alone
        self.coarse = "tf32" if options.products == "bf16" else options.products
        self.fine = "tf32x3" if self.coarse == "tf32" else "float32"
        self.n_rows = n_samples = kernels.n_rows
        # a triangle is worth its own product of (n_samples, n_samples) matrices for many targets
        self.quadratic = n_targets > 1.3 * n_samples
        self.blocks = _cut(
            n_samples, _N_ERROR_BLOCKS[self.device.type], ALIGNMENT[self.device.type]
        )
        matrix_bytes, free = n_samples**2 * kernels.dtype.itemsize, free_memory(self.device)
        self.n_alphas_batch = min(
            len(alphas), options.n_alphas_batch or max(1, int(free / 8 / matrix_bytes))
        )
        self.n_together, self.in_samples = 1, False
        if not self.inverts and self.quadratic:
            if options.n_alphas_batch is None and options.products in _SPAN_TOLERANCE:
                each = len(alphas) * (matrix_bytes + n_targets * self.dtype.itemsize)
                # by sizes: what rounds shall be the same whatever is free, if there is enough
                room = _MOST_FORMS / len(alphas), min(_TOGETHER_BYTES, free / 2) / each
                self.n_together = max(1, min(len(kernels.mixtures), *map(int, room)))
            # forms in the basis of the samples, which all mixtures share, are fewer and need no
            # projection of the targets; to turn them takes a product for each alpha
            gain = min(self.n_together, 2) * n_targets
            self.in_samples = len(alphas) * n_samples < _MOST_TURNED * gain
            self.n_together = self.n_together if self.in_samples else 1
        n_rows = self.n_together * self.n_alphas_batch
        n_rows *= max(stop - start for start, stop in self.blocks)
        self.target_bytes = (2 * n_samples + n_rows) * self.dtype.itemsize

    def prepare(self, indices):
        """Yield `Prepared` for the mixtures; each is valid until the next one is asked for.

        Operands are the basis of the forms, None for that of the samples, and the matrices of each
        alpha, mixture after mixture.
        """
        left, first = list(indices), 0
        while left:
            last = min(first + self.n_alphas_batch, len(self.alphas))
            together = left[: self.n_together]
            try:
                with torch.profiler.record_function("fold blocks"):
                    operands, inverses = self._operands(together, first, last)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or self.n_together == self.n_alphas_batch == 1:
                    raise
                if self.n_together > 1:
                    self.n_together //= 2
                else:
                    self.n_alphas_batch //= 2
                self.options.say(
                    "Memory ran out; the search goes on with fewer mixtures or alphas at a time."
                )
                continue
            prepared = Prepared(together, first, last, operands, inverses)
            del operands, inverses
            yield prepared
            prepared.release()
            first = last % len(self.alphas)
            if first == 0:
                left = left[len(together) :]

    def _operands(self, indices, first, last):
        """Operands of `errors` for some mixtures and alphas, and the inverses of a single one."""
        together, n_alphas = None, last - first
        for k, index in enumerate(indices):
            source = self._source(index)
            matrices, inverses = self._matrices(index, source, first, last)
            where = list(range(k * n_alphas, (k + 1) * n_alphas))
            together = _place(matrices, where, together, len(indices) * n_alphas)
        if self.quadratic:
            together = self._span(len(indices), *together)
        in_samples = self.inverts or self.in_samples
        return (None if in_samples else source[1].to(self.dtype), together), inverses

    def _source(self, index):
        """What the fold blocks are made from: the kernel, or eigenvalues and eigenvectors."""
        return self.kernels.mixture(index) if self.inverts else self.kernels.factor(index)

    def _is_wide(self, index):
        """Which alphas need float64."""
        if self.kernels.dtype == self.dtype:
            return [False] * len(self.alphas)
        least = _FLOAT32_RATIO[WAY[self.device.type]]
        least *= float(self.kernels.mixtures[index] @ self.kernels.sizes)
        return ((self.alphas < least) | (self.options.factors == "float64")).tolist()

    def _matrices(self, index, source, first, last):
        """Matrices for some alphas, the first axis of each, and the inverses."""
        wide = self._is_wide(index)
        matrices = inverses = None
        for flag, dtype in ((False, self.dtype), (True, torch.float64)):
            which = [k - first for k in range(first, last) if wide[k] == flag]
            for some, rows, own in self._rows(source, dtype, which, first):
                parts = self._forms(rows.to(self.dtype))
                matrices = _place(parts, some, matrices, last - first)
                if own is not None and self.options.weights and last - first == len(self.alphas):
                    inverses = _place([own.to(self.dtype)], some, inverses, last - first)
        return matrices, inverses[0] if inverses else None

    def _rows(self, source, dtype, which, first):
        """Yield some of the alphas `which`, their ``B``, and their inverses if these are known.

        ``B``, (n_alphas, n_tested, n_samples), gives the residuals of all folds: ``B @ y``, or ``B
        @ vectors.T @ y``, scaled such that their squares sum to the mean over folds of the mean
        squared error.
        """
        if not which:
            return
        alphas = self.alphas[first:][which].to(dtype)
        if self.inverts:  # all at once: a long chain of small steps
            inverses = self._invert(source.to(dtype), alphas)
            yield which, self._rows_from_inverses(inverses), inverses
            return
        source = [part.to(dtype) for part in source]
        step = max(1, int(_BLOCK_BYTES / 4 / source[1].nbytes))
        for start in range(0, len(which), step):
            some = slice(start, start + step)
            rows = self._rows_from_vectors(*source, alphas[some])
            if self.in_samples:
                rows = product(rows, source[1].T, self.fine)
            yield which[some], rows, None

    def _rows_from_vectors(self, values, vectors, alphas):
        # scaled by alpha, G has its eigenvalues in (0, 1]
        shrinkage = alphas[:, None] / (values + alphas[:, None])  # (n_alphas, n_samples)
        ones = vectors[: self.kernels.n_samples].sum(0)
        rows = []
        for left_out, n_tested in self.groups:
            basis = vectors[left_out]  # (n_folds, size, n_samples)
            left = basis * shrinkage[:, None, None, :]  # (n_alphas, n_folds, size, n_samples)
            block = product(left, basis.mT, self.fine)
            if self.options.fit_intercept:
                edge = shrinkage * ones
                column = left @ ones  # (n_alphas, n_folds, size)
                scaled = column / (edge @ ones)[:, None, None]
                left.sub_(scaled[..., None] * edge[:, None, None, :])
                block.sub_(scaled[..., None] * column[..., None, :])
            inverse = self._invert_block(block, n_tested)
            rows.append(product(inverse, left, self.fine).flatten(1, 2))
        return rows[0] if len(rows) == 1 else torch.cat(rows, 1)

    def _invert(self, kernel, alphas):
        """``alpha G``, or ``alpha M``, of every alpha."""
        inverses = kernel / alphas[:, None, None]
        inverses.diagonal(dim1=-2, dim2=-1).add_(1)
        invert_(inverses, self.options.say, self.fine)
        if self.options.fit_intercept:
            edge = inverses[..., : self.kernels.n_samples].sum(2)
            inverses -= edge[:, :, None] * (edge / edge.sum(1, keepdim=True))[:, None, :]
        return inverses

    def _rows_from_inverses(self, inverses):
        n_columns = inverses.shape[-1]
        n_rows = sum(len(left_out) * n_tested for left_out, n_tested in self.groups)
        rows = inverses.new_empty(len(inverses), n_rows, n_columns)
        filled = 0
        for left_out, n_tested in self.groups:
            blocks = inverses[:, left_out[:, :, None], left_out[:, None, :]]
            blocks = self._invert_block(blocks, n_tested)
            # a fifth of the rows at a time, to spare memory
            step = max(1, n_columns // (5 * left_out.shape[1]))
            for some, block in zip(left_out.split(step), blocks.split(step, 1), strict=True):
                part = product(block, inverses[:, some], self.fine).flatten(1, 2)
                rows[:, filled : filled + part.shape[1]] = part
                filled += part.shape[1]
        return rows

    def _invert_block(self, blocks, n_tested):
        """Tested rows of the inverses of fold blocks (n_alphas, n_folds, size, size).

        Scaled for a mean error.
        """
        invert_(blocks, self.options.say)
        return blocks[:, :, :n_tested].mul_((n_tested * self.n_folds) ** -0.5)

    def _forms(self, rows):
        """Operands of the products, from ``B`` of some alphas.

        For few targets ``B`` itself. Else the diagonal of ``B' B`` in full precision, which
        carries most of the error, and blocks of rows of twice its upper triangle in the precision
        of the products.
        """
        if not self.quadratic:
            return [rows]
        forms = [rows.square().sum(1)]
        for top, bottom in _cut(len(self.blocks), _N_FORM_BLOCKS):
            origin, end = self.blocks[top][0], self.blocks[bottom - 1][1]
            form = product(rows[..., origin:end].mT, rows[..., origin:], self.coarse)
            for start, stop in self.blocks[top:bottom]:
                part = 2 * form[:, start - origin : stop - origin, start - origin :]
                corner = part[..., : stop - start]
                corner.triu_(1)
                forms.append(part)
        return forms

    def _span(self, n_mixtures, diagonals, *parts):
        """Replace the blocks of all alphas by fewer ones of which they are combinations.

        Errors change smoothly with log(alpha): the forms of 20 alphas span about ten dimensions,
        and those of several mixtures of two feature spaces fewer than ten for each.
        """
        coefficients = None
        tolerance = _SPAN_TOLERANCE.get(self.options.products)
        if tolerance is not None:
            # the form of a tiny alpha can be thousands of times as large as those of good ones
            sizes = diagonals.double().sum(1)
            # in float32, what is below 3e-4 of the largest singular value would be lost
            scaled = (part.double().div_(sizes[:, None, None]).flatten(1) for part in parts)
            values, vectors = torch.linalg.eigh(sum(f @ f.T for f in scaled))
            # the more forms of one size, the larger is what they have in common
            vectors = vectors[:, values > tolerance**2 / n_mixtures * values[-1]]
            if vectors.shape[1] < 0.9 * len(vectors):
                coefficients = (vectors * sizes[:, None]).to(self.dtype)
                combine = (vectors / sizes[:, None]).to(self.dtype).T
                parts = [
                    product(combine, part.flatten(1)).unflatten(1, part.shape[1:]) for part in parts
                ]
        if self.options.products == "bf16":
            parts = [part.bfloat16() for part in parts]
        return [diagonals, coefficients, *parts]

    def errors(self, prepared, Y):
        """Mean over folds of the mean squared error, (n_mixtures * n_alphas, n_targets of Y)."""
        vectors, matrices = prepared.operands
        projected = Y if vectors is None else product(vectors.T, Y, self.fine)
        if not self.quadratic:
            squares = [product(rows, projected, self.fine).square_() for rows in matrices[0]]
            return torch.stack([square.sum(0) for square in squares])
        diagonals, coefficients, *parts = matrices
        rest = 0
        operand = projected.bfloat16() if self.options.products == "bf16" else projected
        for (start, stop), part in zip(self.blocks, parts, strict=True):
            # every form has the same right operand: one product for all of them
            upper = product(part.flatten(0, 1), operand[start:], self.options.products)
            upper = upper.unflatten(0, part.shape[:2])
            same = upper.dtype == projected.dtype
            factor = projected[start:stop]
            rest = rest + (upper.mul_(factor) if same else upper * factor).sum(1)
        if coefficients is not None:
            rest = product(coefficients, rest)
        return product(diagonals, projected.square()).add_(rest)

    def weights(self, prepared, alpha_index, Y):
        """Dual weights of Y at one of the alphas, (n_samples, n_targets of Y); needs inverses."""
        return product(prepared.inverses[alpha_index], Y, self.fine) / self.alphas[alpha_index]


def _place(parts, where, together, n_rows):
    """Put the rows of some alphas into arrays of all; parts that are whole become the arrays."""
    if len(where) == n_rows:
        return parts
    if together is None:
        together = [part.new_empty(n_rows, *part.shape[1:]) for part in parts]
    for whole, part in zip(together, parts, strict=True):
        whole[where] = part
    return together


def _cut(n_rows, n_blocks, multiple=1):
    """Cut rows into nearly equal blocks, (start, stop) each, that start at multiples."""
    starts = {multiple * round(k * n_rows / n_blocks / multiple) for k in range(n_blocks)}
    borders = [*sorted(starts - {n_rows}), n_rows]
    return list(zip(borders[:-1], borders[1:], strict=True))


class PrimalErrors:
    """Errors by ridge on the features, for fewer features than samples.

    A fold larger than the number of features is first reduced to the triangle of its QR
    decomposition, which leaves every product with its features as it is.
    """

    def __init__(self, Xs, folds, mixtures, alphas, device, options):
        self.device = device
        self.options = options
        self.alphas = alphas.to(device)
        self.dtype = Xs[0].dtype
        sizes = torch.tensor([X.shape[1] for X in Xs])
        self.scales = torch.repeat_interleave(mixtures.sqrt(), sizes, dim=1).to(device)
        X = torch.cat(list(Xs), 1).to(device).double()
        if options.fit_intercept:
            X = X - X.mean(0)
        self.folds = []
        for test, gap in folds:
            index, gap = test.to(device), gap.to(device)
            rows = torch.cat([X[index], X.new_ones(len(index), 1)], 1)
            reduce = None
            if rows.shape[0] > rows.shape[1]:
                reduce, rows = torch.linalg.qr(rows)
                reduce = reduce.to(self.dtype)
            self.folds.append((index, gap, reduce, rows[:, :-1], rows[:, -1]))
        self.gaps = [X[gap] for _, gap, *_ in self.folds]
        self.grams = [
            rows.T @ rows + X_gap.T @ X_gap
            for (*_, rows, _), X_gap in zip(self.folds, self.gaps, strict=True)
        ]
        self.sums = [
            rows.T @ ones + X_gap.sum(0)
            for (*_, rows, ones), X_gap in zip(self.folds, self.gaps, strict=True)
        ]
        self.n_trained = [len(X) - len(index) - len(gap) for index, gap, *_ in self.folds]
        self.gram, self.total = X.T @ X, X.sum(0)
        # where every sample is tested once, products of the folds sum to that of all samples
        tested = torch.cat([index for index, *_ in self.folds])
        self.X = None if len(torch.unique(tested)) == len(tested) == len(X) else X
        self.n_rows = len(X)
        self.target_bytes = 3 * len(X) * self.dtype.itemsize

    def prepare(self, indices):
        """Yield `Prepared`; operands are the factors of each fold."""
        for i in indices:
            scale = self.scales[i]
            factors = []
            for k, (*_, rows, ones) in enumerate(self.folds):
                train = self.gram - self.grams[k]
                mean = (self.total - self.sums[k]) / self.n_trained[k]
                if self.options.fit_intercept:
                    train = train - self.n_trained[k] * torch.outer(mean, mean)
                    rows = rows - torch.outer(ones, mean)
                with torch.profiler.record_function("eigendecomposition"):
                    values, vectors = eigh(
                        scale[:, None] * train * scale, torch.float64, self.options.say
                    )
                into = scale[:, None] * vectors
                gains = 1 / (values + self.alphas[:, None])
                factors.append(
                    [part.to(self.dtype) for part in (into.T, into.T @ mean[:, None])]
                    + [(rows @ into).to(self.dtype), gains.to(self.dtype)]
                )
            yield Prepared([i], 0, len(self.alphas), tuple(factors))

    def errors(self, prepared, Y):
        """Mean over folds of the mean squared error, (n_alphas, n_targets of Y)."""
        precision = "tf32" if self.options.products == "bf16" else self.options.products
        reduced, rest, cross, own = [], [], [], []
        for (index, gap, reduce, rows, _), X_gap in zip(self.folds, self.gaps, strict=True):
            y = Y[index]
            rest.append(0)
            if reduce is not None:
                rest[-1] = y.square().sum(0)
                y = product(reduce.T, y)
                rest[-1] = (rest[-1] - y.square().sum(0)).clamp_min(0)
            reduced.append(y)
            own.append(product(rows.to(y).T, y))
            cross.append(own[-1] + product(X_gap.to(y).T, Y[gap]) if len(gap) else own[-1])
        all_cross = sum(own) if self.X is None else product(self.X.to(Y).T, Y)
        errors = Y.new_zeros(len(self.alphas), Y.shape[1])
        for k, (index, gap, *_, ones) in enumerate(self.folds):
            into, mean, rows, gains = prepared.operands[k]
            y = reduced[k]
            coefficients = product(into, all_cross - cross[k])
            if self.options.fit_intercept:
                train_sum = Y.sum(0) - Y[index].sum(0) - Y[gap].sum(0)
                coefficients -= mean * train_sum
                y = y - torch.outer(ones.to(y), train_sum / self.n_trained[k])
            weight = 1 / (len(index) * len(self.folds))
            for error, gain in zip(errors, gains, strict=True):
                prediction = product(rows * gain, coefficients, precision)
                error += weight * (prediction.sub_(y).square_().sum(0) + rest[k])
        return errors
