"""Names under which vLLM's users start a server."""
