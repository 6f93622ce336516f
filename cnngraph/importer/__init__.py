"""An existing `nn.Module` as a spec: traced, written as a person would, with its weights."""

from cnngraph.importer.imported import Imported, from_module

__all__ = ["Imported", "from_module"]
