"""Held-out squared errors of every fold and alpha for one mixture of feature spaces.

The arithmetic behind `brainnrds.encoding.solvers`, where the formulas stand, on one device.
"""

import threading
import warnings
from contextlib import contextmanager

import psutil
import torch

# Which way to the fold blocks. A GPU is fast at products, and an eigendecomposition is a chain of
# small kernels there: 114 ms for 4,320 samples on an H100. A CPU takes it in its stride.
WAY = {"cpu": "eigenvectors", "cuda": "inverses"}
# alpha / largest eigenvalue down to which float32 factors keep the scores of unit-variance targets
# within 1e-4 of float64; at these ratios they leave up to 7e-5 and 3e-5 (1,000 samples, kernels
# with power-law spectra; less with flatter ones)
_FLOAT32_RATIO = {"eigenvectors": 1e-3, "inverses": 1e-4}
# the upper triangle in n blocks of rows costs (1 + 1 / n) / 2 of the full product; many where one
# product serves all alphas, few where each alpha has its own
_N_ERROR_BLOCKS = 20
_N_FORM_BLOCKS = 4
# up to this size a block is inverted by LAPACK or cuSOLVER, above it by products
_LEAF_SIZE = {"cpu": 64, "cuda": 288}
# working memory of the fold blocks: on a CPU what stays near the cache
_BLOCK_BYTES = {"cpu": 2**24, "cuda": 2**31}

_precision_lock = threading.Lock()


class Once:
    """Warn about each matter once."""

    def __init__(self):
        self._said = set()

    def __call__(self, message):
        if message not in self._said:
            self._said.add(message)
            warnings.warn(message, UserWarning, stacklevel=4)


def free_memory(device):
    """Return the bytes that can still be allocated on `device`."""
    if device.type != "cuda":
        return psutil.virtual_memory().available
    reusable = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + reusable


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


def product(a, b, precision="float32", out=None):
    """Matrix product, on CUDA in `precision` whatever the process-global switch says.

    "tf32x3" is as precise as float32, and faster: each operand is the sum of what TF32 holds of it
    and of the rest, and three products of these parts leave out the product of the two rests.
    """
    if a.device.type != "cuda" or a.dtype != torch.float32:
        return torch.matmul(a, b, out=out)
    if precision == "tf32x3":
        (a, a_rest), (b, b_rest) = split_tf32(a), split_tf32(b)
        with _matmul_precision("tf32"):
            rests = torch.matmul(a, b_rest).add_(torch.matmul(a_rest, b))
            return torch.add(torch.matmul(a, b), rests, out=out)
    with _matmul_precision(precision):
        return torch.matmul(a, b, out=out)


def split_tf32(array):
    """Return the part of float32 numbers that TF32 holds exactly, and the rest."""
    bits = array.contiguous().view(torch.int32)
    high = (bits & ~0x1FFF).view(torch.float32)
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
        raise ValueError(f"The eigendecomposition of a {tuple(matrix.shape)} kernel failed.")
    if values[0] < -1e-4 * values[-1].abs():
        raise ValueError(
            "`Ks` must be positive semi-definite; got a mixture with eigenvalues from "
            f"{float(values[0]):.3g} to {float(values[-1]):.3g}."
        )
    return values.clamp_min(0).to(matrix.device), vectors.to(matrix.device)


def invert(matrices, say, precision="float32", leaf_size=None):
    """Inverses of symmetric positive definite matrices of shape (..., size, size).

    From the inverse of the Cholesky factor, which is as stable as LAPACK's; in `precision` where
    products do the work.
    """
    leaf_size = leaf_size or _LEAF_SIZE[matrices.device.type]
    factors = torch.zeros_like(matrices)
    failed = _fill_inverse_factors(matrices, factors, precision, leaf_size)
    inverses = _gram(factors, precision)
    if failed.any():
        say(
            "A fold block is singular to working precision: the smallest alphas are below what "
            "the kernel's rounding errors allow."
        )
        values, vectors = torch.linalg.eigh(matrices[failed])
        floor = torch.finfo(values.dtype).eps * values[..., -1:]
        inverses[failed] = (vectors / torch.maximum(values, floor)[..., None, :]) @ vectors.mT
    return inverses


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
    half = size // 2
    first, second = factors[..., :half, :half], factors[..., half:, half:]
    failed = _fill_inverse_factors(matrices[..., :half, :half], first, precision, leaf_size)
    side = product(matrices[..., half:, :half], first.mT, precision)
    rest = matrices[..., half:, half:] - product(side, side.mT, precision)
    failed = failed | _fill_inverse_factors(rest, second, precision, leaf_size)
    lower = product(product(second, side, precision), first, precision)
    factors[..., half:, :half] = lower.neg_()
    return failed


def _gram(factors, precision):
    """``W' W`` of lower triangular W, (..., size, size), without its zeros: half the operations."""
    half = factors.shape[-1] // 2
    if half == 0:
        return factors.square()
    corner, lower = factors[..., :half, :half], factors[..., half:, :]
    left, right = lower[..., :half], lower[..., half:]
    first = product(corner.mT, corner, precision) + product(left.mT, left, precision)
    side = product(right.mT, left, precision)
    second = product(right.mT, right, precision)
    return torch.cat([torch.cat([first, side.mT], -1), torch.cat([side, second], -1)], -2)


def by_size(folds, device):
    """Group folds of one size: list of index tensors of shape (n_folds, size)."""
    sizes = sorted({len(test) for test in folds})
    return [
        torch.stack([torch.as_tensor(test) for test in folds if len(test) == size]).to(device)
        for size in sizes
    ]


class Kernels:
    """Mixtures of kernels on one device, and their eigendecompositions.

    The decompositions are kept for the refit as long as they take less than a quarter of the
    free memory of the device, then of the host.
    """

    def __init__(self, Ks, mixtures, smallest_alpha, device, options):
        self.device = device
        self.mixtures = mixtures
        self.say = options.say
        self.Ks = Ks.to(device)
        self._rows = self.Ks.mean(1)
        if options.fit_intercept:
            # the intercept makes the kernel's mean irrelevant: without it, less is rounded
            rows = self._rows[:, None]
            self.Ks = self.Ks - rows - rows.mT + rows.mean(2, keepdim=True)
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
        n_samples = kernels.Ks.shape[1]
        # a triangle is worth its own product of (n_samples, n_samples) matrices for many targets
        self.quadratic = n_targets > 1.3 * n_samples
        self.blocks = _cut(0, n_samples, _N_ERROR_BLOCKS)
        matrix_bytes = n_samples**2 * self.dtype.itemsize
        self.n_alphas_batch = options.n_alphas_batch or max(
            1, min(len(alphas), int(free_memory(self.device) / 8 / matrix_bytes))
        )
        n_rows = self.n_alphas_batch * max(stop - start for start, stop in self.blocks)
        self.target_bytes = (2 * n_samples + n_rows) * self.dtype.itemsize

    def prepare(self, indices):
        """Yield (index, first alpha, last alpha, eigenvectors, matrices, inverses of each alpha).

        With inverses there are no eigenvectors, and the other way round.
        """
        for index in indices:
            source = self._source(index)
            first = 0
            while first < len(self.alphas):
                last = min(first + self.n_alphas_batch, len(self.alphas))
                try:
                    with torch.profiler.record_function("fold blocks"):
                        matrices, inverses = self._matrices(index, source, first, last)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error) or self.n_alphas_batch == 1:
                        raise
                    self.n_alphas_batch = max(1, self.n_alphas_batch // 2)
                    self.options.say("Memory ran out; the search goes on with fewer alphas a time.")
                    continue
                vectors = None if self.inverts else source[1].to(self.dtype)
                yield index, first, last, vectors, matrices, inverses
                first = last

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
        """Operands of `errors` for some alphas, the first axis of each, and the inverses."""
        wide = self._is_wide(index)
        n_samples = self.kernels.Ks.shape[1]
        matrices = None
        for flag, dtype in ((False, self.dtype), (True, torch.float64)):
            which = [k for k in range(first, last) if wide[k] == flag]
            step = max(1, int(_BLOCK_BYTES[self.device.type] / 4 / (n_samples**2 * dtype.itemsize)))
            for start in range(0, len(which), step):
                some = which[start : start + step]
                if self.inverts:
                    inverses, parts = self._from_inverses(source, dtype, self.alphas[some])
                else:
                    inverses, parts = None, self._from_vectors(source, dtype, self.alphas[some])
                forms = self._forms(self._residual_rows(parts).to(self.dtype))
                if self.options.weights and self.inverts:
                    forms.append(inverses.to(self.dtype))
                if len(some) == last - first:
                    matrices = forms
                    continue
                if matrices is None:
                    matrices = [f.new_empty(last - first, *f.shape[1:]) for f in forms]
                for matrix, form in zip(matrices, forms, strict=True):
                    matrix[[k - first for k in some]] = form
        inverses = matrices.pop() if self.options.weights and self.inverts else None
        return matrices, inverses

    def _from_vectors(self, source, dtype, alphas):
        """Rows of every fold, and its block, of ``alpha G`` in the basis of the eigenvectors.

        Scaled by alpha, ``G`` has its eigenvalues in (0, 1].
        """
        values, vectors = (part.to(dtype) for part in source)
        alphas = alphas.to(dtype)
        ones = vectors.sum(0)
        shrinkage = alphas[:, None] / (values + alphas[:, None])  # (n_alphas, n_samples)
        for tests in self.groups:
            basis = vectors[tests]  # (n_folds, size, n_samples)
            left = basis * shrinkage[:, None, None, :]  # (n_alphas, n_folds, size, n_samples)
            block = product(left, basis.mT, self.fine)
            if self.options.fit_intercept:
                edge = shrinkage * ones
                column = left @ ones  # (n_alphas, n_folds, size)
                scaled = column / (edge @ ones)[:, None, None]
                left.sub_(scaled[..., None] * edge[:, None, None, :])
                block.sub_(scaled[..., None] * column[..., None, :])
            yield left, block

    def _from_inverses(self, kernel, dtype, alphas):
        """``alpha G``, or ``alpha M``, of every alpha; rows of every fold of it, and its block."""
        matrices = kernel.to(dtype) / alphas.to(dtype)[:, None, None]
        matrices.diagonal(dim1=-2, dim2=-1).add_(1)
        inverses = invert(matrices, self.options.say, self.fine)
        if self.options.fit_intercept:
            edge = inverses.sum(2)
            inverses -= edge[:, :, None] * (edge / edge.sum(1, keepdim=True))[:, None, :]

        def parts():
            for tests in self.groups:
                left = inverses[:, tests]  # (n_alphas, n_folds, size, n_samples)
                columns = tests[:, None, :].expand(-1, tests.shape[1], -1)
                yield left, left.gather(3, columns.expand(len(left), -1, -1, -1))

        return inverses, parts()

    def _residual_rows(self, parts):
        """``B`` of each alpha, (n_alphas, n_samples, n_samples).

        ``B @ vectors.T @ y``, or ``B @ y``, are the residuals of all folds, scaled such that their
        squares sum to the mean over folds of the mean squared error.
        """
        rows = []
        for left, block in parts:
            inverse = invert(block, self.options.say)
            inverse.mul_((block.shape[-1] * self.n_folds) ** -0.5)
            rows.append(product(inverse, left, self.fine).flatten(1, 2))
        return rows[0] if len(rows) == 1 else torch.cat(rows, 1)

    def _forms(self, rows):
        """Operands of the products, from ``B`` of some alphas.

        For few targets ``B`` itself. Else the diagonal of ``B' B`` in full precision, which
        carries most of the error, and blocks of rows of twice its upper triangle in the precision
        of the products.
        """
        if not self.quadratic:
            return [rows]
        forms = [rows.square().sum(1)]
        for top, bottom in _cut(0, len(self.blocks), _N_FORM_BLOCKS):
            origin, end = self.blocks[top][0], self.blocks[bottom - 1][1]
            form = product(rows[..., origin:end].mT, rows[..., origin:], self.coarse)
            for start, stop in self.blocks[top:bottom]:
                part = 2 * form[:, start - origin : stop - origin, start - origin :]
                corner = part[..., : stop - start]
                corner.triu_(1)
                forms.append(part.bfloat16() if self.options.products == "bf16" else part)
        return forms

    def errors(self, item, Y):
        """Mean over folds of the mean squared error, (n_alphas of the item, n_targets of Y)."""
        vectors, matrices = item[3:5]
        projected = Y if vectors is None else product(vectors.T, Y, self.fine)
        if not self.quadratic:
            squares = [product(rows, projected, self.fine).square_() for rows in matrices[0]]
            return torch.stack([square.sum(0) for square in squares])
        diagonals, *parts = matrices
        errors = product(diagonals, projected.square())
        operand = projected.bfloat16() if self.options.products == "bf16" else projected
        for (start, stop), part in zip(self.blocks, parts, strict=True):
            # every alpha has the same right operand: one product for all of them
            upper = product(part.flatten(0, 1), operand[start:], self.options.products)
            upper = upper.unflatten(0, part.shape[:2])
            same = upper.dtype == projected.dtype
            factor = projected[start:stop]
            errors += (upper.mul_(factor) if same else upper * factor).sum(1)
        return errors

    def weights(self, item, alpha_index, Y):
        """Dual weights of Y at one of the alphas, (n_samples, n_targets of Y); needs inverses."""
        return product(item[5][alpha_index], Y, self.fine) / self.alphas[alpha_index]


def _cut(first, last, n_blocks):
    """Borders of nearly equal blocks, (start, stop) each."""
    n_blocks = min(n_blocks, last - first)
    borders = [first + round(k * (last - first) / n_blocks) for k in range(n_blocks + 1)]
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
        for test in folds:
            index = torch.as_tensor(test).to(device)
            rows = torch.cat([X[index], X.new_ones(len(index), 1)], 1)
            reduce = None
            if rows.shape[0] > rows.shape[1]:
                reduce, rows = torch.linalg.qr(rows)
                reduce = reduce.to(self.dtype)
            self.folds.append((index, reduce, rows[:, :-1], rows[:, -1]))
        self.grams = [rows.T @ rows for _, _, rows, _ in self.folds]
        self.sums = [rows.T @ ones for _, _, rows, ones in self.folds]
        self.target_bytes = 3 * len(X) * self.dtype.itemsize

    def prepare(self, indices):
        """Yield (index, first alpha, last alpha, factors of each fold)."""
        gram, total = sum(self.grams), sum(self.sums)
        n_samples = sum(len(index) for index, *_ in self.folds)
        for i in indices:
            scale = self.scales[i]
            factors = []
            for (index, _, rows, ones), own, own_sum in zip(
                self.folds, self.grams, self.sums, strict=True
            ):
                train, mean = gram - own, (total - own_sum) / (n_samples - len(index))
                if self.options.fit_intercept:
                    train = train - (n_samples - len(index)) * torch.outer(mean, mean)
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
            yield i, 0, len(self.alphas), factors

    def errors(self, item, Y):
        """Mean over folds of the mean squared error, (n_alphas, n_targets of Y)."""
        precision = "tf32" if self.options.products == "bf16" else self.options.products
        reduced, rest, cross, sums = [], [], [], []
        for index, reduce, rows, ones in self.folds:
            y = Y[index]
            rest.append(0)
            if reduce is not None:
                rest[-1] = y.square().sum(0)
                y = product(reduce.T, y)
                rest[-1] = (rest[-1] - y.square().sum(0)).clamp_min(0)
            reduced.append(y)
            cross.append(product(rows.to(y).T, y))
            sums.append(ones.to(y) @ y)
        all_cross, all_sums = sum(cross), sum(sums)
        errors = Y.new_zeros(len(self.alphas), Y.shape[1])
        for k, (index, _, _, ones) in enumerate(self.folds):
            into, mean, rows, gains = item[3][k]
            y = reduced[k]
            coefficients = product(into, all_cross - cross[k])
            if self.options.fit_intercept:
                train_sum = all_sums - sums[k]
                coefficients -= mean * train_sum
                y = y - torch.outer(ones.to(y), train_sum / (len(Y) - len(index)))
            weight = 1 / (len(index) * len(self.folds))
            for error, gain in zip(errors, gains, strict=True):
                prediction = product(rows * gain, coefficients, precision)
                error += weight * (prediction.sub_(y).square_().sum(0) + rest[k])
        return errors
