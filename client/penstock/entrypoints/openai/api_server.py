"""`python -m penstock.entrypoints.openai.api_server`: `penstock serve` at vLLM's port, with its
names of metrics beside ours."""

import sys

from penstock.terminal.start import start

if __name__ == "__main__":
    start(sys.argv[1:], {"--port": "8000", "--metric-names": "vllm"})
