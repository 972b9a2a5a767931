"""nasgram: neural architecture search over grammars."""
