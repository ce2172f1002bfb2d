"""Batches of a Python program on the same machine (`penstock.LLM`), over a Unix socket."""
