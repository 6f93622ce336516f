"""Loss curves of 500 steps, fused and eager, from one seed. Draws `docs/loss_curves.png`.

Fused and eager compute the same, but round differently, as eager does with another number of
threads. Training magnifies such differences. Averaged over 25 steps, the loss of fused must not
differ more from that of eager than eager with two threads differs from eager with one.
"""

from __future__ import annotations

from pathlib import Path

import torch

from .networks import Training

STEPS, WINDOW = 500, 25
RUNS = {
    "eager, 1 thread": ("eager", 1),
    "eager, 2 threads": ("eager", 2),
    "fused, 1 thread": ("fused", 1),
    "fused, 2 threads": ("fused", 2),
}
SEEDS = range(3)
PICTURE = Path(__file__).parents[2] / "docs" / "loss_curves.png"


def losses(backend: str, threads: int, seed: int) -> torch.Tensor:
    """The loss of each step."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    training = Training(backend, seed, batch_size=32)
    return torch.tensor([training.step() for _ in range(STEPS)], dtype=torch.float64)


def main() -> None:
    curves = {
        name: torch.stack([losses(*run, seed) for seed in SEEDS]) for name, run in RUNS.items()
    }
    means = {name: curve.unflatten(1, (-1, WINDOW)).mean(2) for name, curve in curves.items()}
    reference = means["eager, 1 thread"]
    apart = {name: (mean - reference).abs().amax(0) for name, mean in means.items()}
    rows = [0, *range(3, STEPS // WINDOW, 4)]
    print(f"| steps | {' | '.join(RUNS)} | {' | '.join(f'{name} apart' for name in [*RUNS][1:])} |")
    for row in rows:
        values = [f"{mean[0, row]:.4f}" for mean in means.values()]
        values += [f"{apart[name][row]:.1e}" for name in [*RUNS][1:]]
        print(f"| {row * WINDOW + 1} to {(row + 1) * WINDOW} | {' | '.join(values)} |")
    draw({name: mean[0] for name, mean in means.items()}, apart)
    noise = apart["eager, 2 threads"].max()
    for name in ("fused, 1 thread", "fused, 2 threads"):
        print(f"{name}: at most {apart[name].max():.4f} from eager; two eager runs {noise:.4f}")
        assert apart[name].max() <= 1.5 * noise


def draw(means: dict[str, torch.Tensor], apart: dict[str, torch.Tensor]) -> None:
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(2, sharex=True, figsize=(7, 5), layout="constrained")
    steps = [WINDOW * (index + 1) for index in range(STEPS // WINDOW)]
    for index, (name, mean) in enumerate(means.items()):
        style = {"color": f"C{index}", "linestyle": ["-", "--", ":", "-."][index]}
        above.plot(steps, mean, label=name, **style)
        if index:
            below.semilogy(steps, apart[name], label=name, **style)
    above.set_ylabel(f"loss, mean of {WINDOW} steps")
    below.set_ylabel("distance from eager, 1 thread")
    below.set_xlabel("step")
    above.legend()
    figure.savefig(PICTURE, dpi=80)
