"""Graph -> modules."""
