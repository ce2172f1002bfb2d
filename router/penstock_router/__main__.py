import sys

from penstock_router.server import main

if __name__ == "__main__":
    sys.exit(main())
