import sys

from penstock_proto.imports import kept
from penstock_proto.stacks import answer_with_stacks

answer_with_stacks()

with kept():
    from penstock_router.fronts.process import main

if __name__ == "__main__":
    sys.exit(main())
