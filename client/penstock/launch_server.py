"""`python -m penstock.launch_server`: `penstock serve` at SGLang's port and address."""

import sys

from penstock.terminal.start import start

if __name__ == "__main__":
    start(sys.argv[1:], {"--port": "30000", "--host": "127.0.0.1"})
