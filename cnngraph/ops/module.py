"""Any `nn.Module`, by the name of its class. Its shapes are found on the meta device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ConfigDict, Field

from cnngraph.ops.op import Op, new_module
from cnngraph.ops.registry import register
from cnngraph.shape import ShapeError, TensorShape

if TYPE_CHECKING:
    from torch import nn

_BATCH = 2
_MOST_KNOWN = 1000


class _Call(NamedTuple):
    """What a module makes of an input, without the batch, and its multiply-accumulates."""

    shape: TensorShape
    macs: int


_modules: dict[str, nn.Module] = {}
_calls: dict[str, _Call] = {}


@register
class Module(Op):
    """A module of any class that takes one tensor and returns one: `class`, with `args`.

    The class is imported and run, so that a spec with it needs `allow_code`.
    """

    model_config = ConfigDict(populate_by_name=True)

    kind = "module"
    sets_channels = True
    runs_code = True

    class_name: str = Field(alias="class")
    args: dict[str, Any] = {}

    def infer(self, *inputs: TensorShape) -> TensorShape:
        return self._called(inputs[0]).shape

    def parameters(self, *inputs: TensorShape) -> dict[str, tuple[int, ...]]:
        return {name: tuple(item.shape) for name, item in self._meta().named_parameters()}

    def buffers(self, *inputs: TensorShape) -> dict[str, tuple[int, ...]]:
        own = self.parameters(*inputs)
        state = self._meta().state_dict()
        return {name: tuple(item.shape) for name, item in state.items() if name not in own}

    def macs(self, output: TensorShape, *inputs: TensorShape) -> int:
        return self._called(inputs[0]).macs

    def module(self, *inputs: TensorShape) -> nn.Module:
        return new_module(self.class_name, self.args)

    def _meta(self) -> nn.Module:
        """The module without values, in evaluation."""
        key = repr((self.class_name, self.args))
        if key not in _modules:
            if len(_modules) > _MOST_KNOWN:
                _modules.clear()
            _modules[key] = _on_meta(self.class_name, self.args)
        return _modules[key]

    def _called(self, shape: TensorShape) -> _Call:
        key = repr((self.class_name, self.args, shape))
        if key not in _calls:
            if len(_calls) > _MOST_KNOWN:
                _calls.clear()
            _calls[key] = _call(self.class_name, self._meta(), shape)
        return _calls[key]


def _on_meta(name: str, args: dict[str, Any]) -> nn.Module:
    import torch
    from torch import nn

    try:
        with torch.device("meta"):
            made: Any = new_module(name, args)
    except (ImportError, AttributeError, ValueError) as error:
        raise _error(name, f"cannot be imported: {_line(error)}") from None
    except (NotImplementedError, RuntimeError):  # it reads values, which tensors there do not have
        with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType]
            made = _on_cpu(name, args)
    except Exception as error:
        raise _error(name, f"cannot be made of these `args`: {_line(error)}") from None
    if not isinstance(made, nn.Module):
        raise _error(name, "is no subclass of torch.nn.Module")
    return made.to("meta").eval()


def _on_cpu(name: str, args: dict[str, Any]) -> Any:
    try:
        return new_module(name, args)
    except Exception as error:
        raise _error(name, f"cannot be made of these `args`: {_line(error)}") from None


def _call(name: str, module: nn.Module, shape: TensorShape) -> _Call:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            result = module(torch.empty(_BATCH, *shape, device="meta"))
    except Exception as error:
        raise _error(name, f"cannot be called with {shape}: {_line(error)}") from None
    if not isinstance(result, torch.Tensor):
        raise _error(name, f"must return a tensor, not {type(result).__name__}")
    if result.dim() < 2 or result.shape[0] != _BATCH:
        sizes = "x".join(map(str, result.shape))
        raise _error(name, f"must keep the batch: of a batch of {_BATCH} it makes {sizes}")
    return _Call(TensorShape(result.shape[1:]), counter.get_total_flops() // (2 * _BATCH))


def _line(error: Exception) -> str:
    """The first line of an error's text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _error(name: str, problem: str) -> ShapeError:
    return ShapeError(
        f"the class {name} {problem}",
        code="E118",
        help="`class` is the full name of a subclass of torch.nn.Module, such as "
        "`torch.nn.Softshrink`, and `args` are the arguments of its constructor by name",
    )
