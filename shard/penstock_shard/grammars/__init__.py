"""Grammars: compiled, matched against what is generated, and told to the sampler as bits."""
