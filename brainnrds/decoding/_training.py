"""How the decoder's network is trained: epochs, early stopping, checkpoints."""

import copy
import hashlib
import math
import os
import warnings
from io import BytesIO

import numpy as np
import torch
from tqdm.auto import tqdm

from brainnrds._checks import InputError
from brainnrds._files import read_sealed, write_sealed
from brainnrds.decoding._inputs import autocast, class_logits, cuda_devices

CHECKPOINT_EPOCHS = 5  # from one checkpoint to the next


class Training:
    """One fit's loop over epochs: what a checkpoint has to hold is its state."""

    def __init__(self, decoder, network, windows, features, y, device, random):
        self.decoder = decoder
        self.network = network
        self.windows = windows
        self.features = features
        self.device = device
        self.random = random
        self.y = y
        labels = decoder.codebook_.encode(y)  # [clips, steps, h, w]
        labels = labels.reshape(*labels.shape[:2], -1).swapaxes(1, 2)  # [clips, cells, steps]
        self.labels = torch.from_numpy(np.ascontiguousarray(labels)).to(device)
        self.codes = torch.from_numpy(decoder.codebook_.codes_).to(device)
        # no decay for biases and norms
        matrices = [p for p in network.parameters() if p.ndim > 1]
        vectors = [p for p in network.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": decoder.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=decoder.learning_rate,
            fused=torch.device(device).type == "cuda",
        )
        self.n_parts = 1
        self.history = {
            "train_loss": [],
            "validation_loss": [],
            "validation_error": [],
            "learning_rate": [],
        }
        self.best_epoch = -1
        self.best_state = None

    def run(self, train, validation, fingerprint, *, beginnings=()):
        """Train; of `beginnings` of the read-in layer, the best stays unless training betters it.

        Each is its weight and bias; without validation clips the first is taken.
        """
        decoder = self.decoder
        as_begun = self._begin(beginnings, validation)
        self._load_checkpoint(fingerprint)
        start = len(self.history["train_loss"])
        n_batches = -(-len(train) // decoder.batch_size)
        n_total = decoder.n_epochs * n_batches
        bar = tqdm(
            range(start, decoder.n_epochs),
            initial=start,
            total=decoder.n_epochs,
            desc="decoder" if decoder.use_bold else "image-only decoder",
            unit="epoch",
            disable=not decoder.verbose,
        )
        for epoch in bar:
            if self._is_over(epoch, validation):
                break
            order = self.random.permutation(train)
            losses = []
            for i, batch in enumerate(np.array_split(order, n_batches)):
                rate = _learning_rate(decoder.learning_rate, epoch * n_batches + i, n_total)
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
                losses.append(self._step(batch) * len(batch))
            self.history["train_loss"].append(float(sum(losses)) / len(train))
            self.history["learning_rate"].append(float(rate))
            loss, error = self._evaluate(validation)
            self.history["validation_loss"].append(loss)
            self.history["validation_error"].append(error)
            errors = self.history["validation_error"]
            if not len(validation):
                self.best_epoch = epoch
            elif error < min([*errors[:-1], as_begun]):
                self.best_epoch = epoch
                self.best_state = copy.deepcopy(self.network.state_dict())
            bar.set_postfix(loss=self.history["train_loss"][-1], held_out_px=error)
            if (epoch + 1) % CHECKPOINT_EPOCHS == 0:
                self._save_checkpoint(fingerprint)
        bar.close()
        self._save_checkpoint(fingerprint)
        if self.best_state is not None:
            self.network.load_state_dict(self.best_state)

    def _begin(self, beginnings, validation):
        """Try beginnings of the read-in layer: the validation error of the one that is kept."""
        least = np.inf
        for weight, bias in beginnings:
            layer = self.network.read_in[0]
            with torch.no_grad():
                layer.weight.copy_(torch.from_numpy(weight))
                layer.bias.copy_(torch.from_numpy(bias))
            if not len(validation):
                break
            error = self._evaluate(validation)[1]
            if error < least:
                least, self.best_state = error, copy.deepcopy(self.network.state_dict())
        if self.best_state is not None:
            self.network.load_state_dict(self.best_state)
        return least

    def _is_over(self, epoch, validation):
        return bool(len(validation)) and epoch - self.best_epoch > self.decoder.patience

    def _step(self, batch):
        """One step of the optimiser; without enough GPU memory, in more and smaller parts."""
        while True:
            try:
                self.optimizer.zero_grad(set_to_none=True)
                loss = 0.0
                for part in np.array_split(batch, min(self.n_parts, len(batch))):
                    part_loss = self._loss(part) * (len(part) / len(batch))
                    part_loss.backward()
                    loss = loss + part_loss.detach()
                self.optimizer.step()
                return loss
            except torch.cuda.OutOfMemoryError:
                if self.n_parts >= len(batch):
                    raise
            # outside the handler, whose traceback holds on to the failed part's memory
            self._halve(len(batch))

    def _halve(self, n_clips):
        self.n_parts *= 2
        self.optimizer.zero_grad(set_to_none=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        warnings.warn(
            f"not enough memory on {self.device} for a batch of {n_clips} clips: each step now "
            f"sums the gradients of {self.n_parts} parts.",
            stacklevel=2,
        )

    def _loss(self, batch):
        with autocast(self.decoder.precision, self.device):
            logits = class_logits(self.network, self.windows, self.features, batch, self.device)
        labels = self.labels[torch.from_numpy(batch).to(self.device)].long()
        return torch.nn.functional.cross_entropy(logits.float().flatten(0, 2), labels.flatten())

    @torch.no_grad()
    def _evaluate(self, rows):
        """Mean loss and end-point error on held-out clips; NaN without any."""
        if not len(rows):
            return float("nan"), float("nan")
        self.network.eval()
        loss = error = 0.0
        size = max(1, self.decoder.batch_size // self.n_parts)
        for batch in np.array_split(rows, -(-len(rows) // size)):
            with autocast(self.decoder.precision, self.device):
                logits = class_logits(self.network, self.windows, self.features, batch, self.device)
            logits = logits.float()
            labels = self.labels[torch.from_numpy(batch).to(self.device)].long()
            loss += len(batch) * float(
                torch.nn.functional.cross_entropy(logits.flatten(0, 2), labels.flatten())
            )
            flow = logits.softmax(dim=3) @ self.codes  # [clips, cells, steps, 2]
            true = torch.from_numpy(self.y[batch]).flatten(3).permute(0, 3, 1, 2).to(self.device)
            error += len(batch) * float((flow - true).norm(dim=3).mean())
        self.network.train()
        return loss / len(rows), error / len(rows)

    def _save_checkpoint(self, fingerprint):
        path = self.decoder.checkpoint_path
        if path is None:
            return
        name, keys, *rest = self.random.get_state()
        state = {
            "fingerprint": fingerprint,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best_state": self.best_state,
            "best_epoch": self.best_epoch,
            "history": self.history,
            "n_parts": self.n_parts,
            "numpy_random": [name, keys.tolist(), *rest],
            "torch_random": torch.get_rng_state(),
            "cuda_random": [torch.cuda.get_rng_state(i) for i in cuda_devices(self.device)],
        }
        content = BytesIO()
        torch.save(state, content)
        write_sealed(path, content.getvalue())

    def _load_checkpoint(self, fingerprint):
        path = self.decoder.checkpoint_path
        if path is None:
            return
        content = read_sealed(path)
        if content is None:
            if os.path.lexists(path):
                warnings.warn(f"{os.fspath(path)} is damaged: training begins anew.", stacklevel=2)
            return
        state = torch.load(BytesIO(content), map_location=self.device, weights_only=True)
        if state.get("fingerprint") != fingerprint:
            raise InputError(
                "`checkpoint_path` holds a training on other data or parameters: "
                f"{os.fspath(path)}. Remove the file or name another."
            )
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best_state, self.best_epoch = state["best_state"], state["best_epoch"]
        self.history, self.n_parts = state["history"], state["n_parts"]
        name, keys, *rest = state["numpy_random"]
        self.random.set_state((name, np.asarray(keys, dtype=np.uint32), *rest))
        torch.set_rng_state(state["torch_random"].cpu())
        for i, cuda_state in zip(cuda_devices(self.device), state["cuda_random"], strict=True):
            torch.cuda.set_rng_state(cuda_state.cpu(), i)


def _learning_rate(peak, step, n_total):
    """Linear over the first twentieth, then a half cosine to 0."""
    n_warm = max(1, n_total // 20)
    if step < n_warm:
        return peak * (step + 1) / n_warm
    return peak * 0.5 * (1 + math.cos(math.pi * (step - n_warm) / max(1, n_total - n_warm)))


def fingerprint_of(decoder, arrays, seed):
    parameters = {
        name: value
        for name, value in decoder.get_params(deep=False).items()
        if name not in ("checkpoint_path", "device", "verbose", "random_state")
    }
    digest = hashlib.blake2b(repr((sorted(parameters.items()), seed)).encode(), digest_size=16)
    for array in arrays:
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()
