"""Tokens to text: a table of a model's tokens, and a detokenizer of one sequence, each."""
