"""The network on its devices: the steps that train it, its evaluation, and its whole state.

What belongs to the devices is Lightning Fabric's. When to train, evaluate and save: loop.py.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from cnngraph.lowering.network import Network
from cnngraph.nn.sync_batch_norm import plain_batch_norms, sync_batch_norms
from cnngraph.training.augmentation import Targets, Transform, cross_entropy
from cnngraph.training.data import Images
from cnngraph.training.distributed import processes, processes_here
from cnngraph.training.extras import require
from cnngraph.training.fine_tuning import apply_freezing
from cnngraph.training.nonfinite import all_finite, first_nonfinite
from cnngraph.training.optimization import moving_average, optimizer_of, set_rates
from cnngraph.training.setup import Setup
from cnngraph.training.sharding import gathered, load_whole, shard, share_state, whole

_PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}


def _fabric_of(setup: Setup) -> Any:
    """Lightning's access to the devices of the run."""
    strategies = require("lightning_fabric.strategies")
    if processes() == 1:
        strategy = "auto"
    elif setup.strategy == "fsdp":
        strategy = strategies.ModelParallelStrategy(
            _shard,
            data_parallel_size=processes(),
            tensor_parallel_size=1,
        )
    else:  # all processes have the same statistics of batch norms already
        strategy = strategies.DDPStrategy(broadcast_buffers=False)
    fabric = require("lightning_fabric").Fabric(
        accelerator=setup.device.type,
        devices=processes_here(),
        num_nodes=processes() // processes_here(),
        strategy=strategy,
        precision=_PRECISIONS[setup.recipe.precision],
    )
    if processes() > 1:
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        fabric.launch()
    return fabric


def _shard(net: nn.Module, mesh: Any) -> Any:
    return shard(net, mesh["data_parallel"])


class Engine:
    """A network that is trained, in one process or as a part of several.

    Attributes:
        net: the network with the weights that are trained.
        average: its moving average, if the recipe has `ema`.
        rank, devices: the number of this process, and of all.
    """

    def __init__(self, setup: Setup) -> None:
        self.recipe = setup.recipe
        self.fabric = _fabric_of(setup)
        self.rank: int = self.fabric.global_rank
        self.devices: int = self.fabric.world_size
        self.device: torch.device = self.fabric.device
        self.net: Network = setup.net
        self.sharded = self.devices > 1 and setup.strategy == "fsdp"
        if self.devices > 1:
            sync_batch_norms(self.net)
        ema = self.recipe.ema
        self.average = None if ema is None else moving_average(self.net, ema).to(self.device)
        self._model: Any = None
        self._set_up()
        if self.sharded and self.average is not None:
            _shard(self.average.module, self.fabric.strategy.device_mesh)
        # On a GPU, fused updates exclude the clipping of gradients in float16.
        one_pass = self.device.type == "cpu" and not self.sharded
        optimizer = optimizer_of(self.net, self.recipe, one_pass=one_pass)
        self.optimizer: Any = self.fabric.setup_optimizers(optimizer)
        self.transform = Transform(
            setup.normalisation, self.recipe.augment, setup.net.compilation.graph.input
        ).to(self.device)

    def _set_up(self) -> None:
        self._trained = self._trained_now()
        self._model = None  # its hooks on the gradients end before those of the next one begin
        with warnings.catch_warnings():  # torch 2.13 renames it, torch 2.11 has no other name
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")
            self._model = self.fabric.setup_module(self.net)

    def _trained_now(self) -> tuple[bool, ...]:
        return tuple(value.requires_grad for value in self.net.parameters())

    @property
    def best_net(self) -> Any:
        """The network that is evaluated and kept: the averages, if the recipe has `ema`."""
        return self.net if self.average is None else self.average.module

    @property
    def lr(self) -> float:
        """The current learning rate, of the last parts of the network."""
        return self.optimizer.param_groups[-1]["lr"]

    # --- steps ----------------------------------------------------------------------------------

    def start_epoch(self, epoch: int) -> None:
        """Freezes and unfreezes what the recipe says for an epoch, counted from 0."""
        apply_freezing(self.net, self.recipe, epoch)
        if not self.sharded and self._trained != self._trained_now():
            self._set_up()  # DDP exchanges the gradients of the parameters it found at the start
        self._model.train()

    def add_gradients(
        self, images: Tensor, labels: Tensor, share: float, last: bool
    ) -> tuple[float, int]:
        """Adds the gradients of this process's part of a batch.

        Args:
            images: this process's part of the batch, as it comes from the data.
            labels: their classes.
            share: the factor of this part's loss.
            last: whether the optimizer updates the weights next, so that gradients are exchanged.

        Returns:
            Of all processes: the sum of the losses, and the number of images that were recognised.
        """
        images, labels = self.fabric.to_device((images, labels))
        inputs, targets = self.transform.augmented(images, labels)
        with self.fabric.no_backward_sync(self._model, enabled=not last):
            loss, logits = self._loss(self._model, inputs, targets)
            correct = (logits.argmax(1) == labels).sum()
            summed, recognised = self._summed(loss * len(labels), correct)
            self.fabric.backward(loss * share)
        return summed, int(recognised)

    def _loss(self, model: Any, inputs: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        """The loss of a batch, side heads included, and the logits."""
        result = model(inputs)
        heads: dict[str, Tensor] = result if isinstance(result, dict) else {"logits": result}
        losses = {
            name: cross_entropy(value, targets, self.recipe.label_smoothing)
            for name, value in heads.items()
        }
        loss = losses.pop("logits")
        for other in losses.values():
            loss = loss + self.recipe.aux_weight * other
        return loss, heads["logits"]

    def _summed(self, *values: Any) -> list[float]:
        """The sum of each value over all processes."""
        found = torch.stack([torch.as_tensor(value).detach().double().cpu() for value in values])
        if self.devices > 1:
            found = self.fabric.all_reduce(found.to(self.device), reduce_op="sum")
        return found.tolist()

    def any_of(self, *flags: bool) -> list[bool]:
        """Which of the flags are true in any process."""
        return list(flags) if self.devices == 1 else [count > 0 for count in self._summed(*flags)]

    def update(self, factor: float) -> bool:
        """A step of the optimizer, with `factor` times its learning rates.

        Returns:
            Whether all gradients are finite; otherwise nothing is updated.
        """
        set_rates(self.optimizer, factor)
        scaled = self.recipe.precision == "float16"  # its scaler skips steps that are not finite
        gradients = (value.grad for value in self.net.parameters() if value.grad is not None)
        if not scaled and not all_finite(gradients):
            return False
        if self.recipe.clip_gradient_norm is not None:
            self.fabric.clip_gradients(
                self._model,
                self.optimizer,
                max_norm=self.recipe.clip_gradient_norm,
                error_if_nonfinite=False,
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update_parameters(self.net)
        return True

    def explain(self, images: Tensor, labels: Tensor) -> str:
        """Repeats a batch, and says which of its values is the first that is not finite."""
        plain_batch_norms(self.net)
        images, labels = self.fabric.to_device((images, labels))
        inputs, targets = self.transform.augmented(images, labels)
        with self.fabric.autocast():
            return first_nonfinite(self.net, lambda: self._loss(self.net, inputs, targets)[0])

    def finite_weights(self) -> bool:
        """Whether all weights are finite."""
        return all_finite(value.detach() for value in self.net.parameters())

    # --- evaluation -----------------------------------------------------------------------------

    @torch.no_grad()
    def evaluate(self, images: Images, batch_size: int) -> tuple[float, float]:
        """The loss and the accuracy of images, which are divided among all processes."""
        model = self.best_net.eval()
        count = len(images.labels)
        sums = torch.zeros(2, dtype=torch.float64)
        for indices in self._parts(count, batch_size):
            read = indices or [0]  # where others have images left: sharded networks run together
            labels = images.labels[read].to(self.device)
            inputs = self.transform(images.batch(read).to(self.device))
            with self.fabric.autocast():
                logits = model(inputs).float()
            if indices:
                loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
                correct = (logits.argmax(1) == labels).sum()
                sums += torch.stack([loss.double(), correct.double()]).cpu()
        loss, correct = self._summed(*sums)
        return loss / max(1, count), correct / max(1, count)

    def _parts(self, count: int, batch_size: int) -> Iterable[list[int]]:
        """The batches of this process; every process has the same number, the last may be empty."""
        for start in range(0, count, batch_size * self.devices):
            first = start + self.rank * batch_size
            yield list(range(first, min(first + batch_size, count)))

    # --- the whole state ------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What later steps depend on besides the weights of `best_net`. All processes call it."""
        average = self.average
        return {
            "optimizer": whole(self.optimizer.state_dict()),
            "precision": self.fabric.strategy.precision.state_dict(),
            "average": None
            if average is None
            else {"updates": int(average.n_averaged), "weights": whole(self.net.state_dict())},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continues from a `state`. The network has the weights that were saved with it."""
        saved = share_state(state["optimizer"], self.optimizer)
        for group, own in zip(saved["param_groups"], self.optimizer.param_groups, strict=True):
            if "fused" in own:  # as on this device
                group["fused"] = own["fused"]
        self.optimizer.load_state_dict(saved)
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        if self.average is not None:
            self.average.module.load_state_dict(self.net.state_dict())
            self.average.n_averaged.fill_(state["average"]["updates"])
            load_whole(self.net, state["average"]["weights"])

    def finished_net(self) -> Network:
        """The network as it is used after the run: plain, and in evaluation mode."""
        net: Network = gathered(self.best_net) if self.sharded else self.best_net
        plain_batch_norms(net)
        return net.eval()
