"""Suggestions for a wrong kind, argument or value: this language's spelling for another's."""
