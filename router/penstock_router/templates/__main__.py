import sys

from penstock_router.templates.worker import main

if __name__ == "__main__":
    sys.exit(main())
