"""Which names a node can have: those that a torch module can use for a submodule."""

from __future__ import annotations

import keyword
import re
import unicodedata

from cnngraph.errors import show

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")

TAKEN_BY_TORCH = frozenset(
    """
    T_destination add_module append apply bfloat16 buffers call_super_init children code
    compilation compile cpu cuda double dump_patches eval extend extra_repr feature_info float
    for_inference forward forward_features get_buffer get_extra_state get_parameter
    get_submodule half input insert ipu load_state_dict modules mtia named_buffers
    named_children named_modules named_parameters parameters pop register_backward_hook
    register_buffer register_forward_hook register_forward_pre_hook register_full_backward_hook
    register_full_backward_pre_hook register_load_state_dict_post_hook
    register_load_state_dict_pre_hook register_module register_parameter
    register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ reset_classifier
    self set_extra_state set_submodule share_memory state_dict step_memory to to_empty train
    training type xpu zero_grad
    """.split()  # noqa: SIM905
)
"""Attributes of every compiled network, which no submodule may replace, and the graph's `input`.

They are those of every supported version of torch, since a check does not import it. Names of a
later version are refused when the network is compiled (`cnngraph.lowering.names`).
"""


def name_problem(name: object) -> str | None:
    """Why `name` cannot be a node's name, or None."""
    if not isinstance(name, str):
        return f"a name must be text, not {show(name)}"
    if not _NAME.fullmatch(name):
        return f"a name consists of letters (a to z), digits, `_` and `-`, unlike `{name}`"
    if name.startswith("_"):
        return f"a name cannot begin with `_`, as `{name}` does"
    if name in TAKEN_BY_TORCH or keyword.iskeyword(name):
        return taken_problem(name)
    return None


def taken_problem(name: str) -> str:
    """Says that a torch module uses `name` itself."""
    return f"`{name}` already has a meaning in a torch module"


def free_name(name: str) -> str | None:
    """A valid name similar to `name`, or None."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", plain).strip("_-")
    return next((free for free in (plain, f"{plain}_") if plain and not name_problem(free)), None)
