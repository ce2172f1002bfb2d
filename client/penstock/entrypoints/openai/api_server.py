"""`python -m penstock.entrypoints.openai.api_server`: `penstock serve` at vLLM's port."""

import sys

from penstock.terminal.start import start

if __name__ == "__main__":
    start(sys.argv[1:], {"--port": "8000"})
