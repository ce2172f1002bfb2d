import sys

from penstock_proto.stacks import answer_with_stacks

answer_with_stacks()

from penstock_router.fronts.process import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
