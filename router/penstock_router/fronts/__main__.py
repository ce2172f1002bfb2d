import sys

from penstock_router.fronts.process import main

if __name__ == "__main__":
    sys.exit(main())
