from penstock_proto.imports import kept
from penstock_proto.stacks import answer_with_stacks
from penstock_proto.transport import without_event_engine

answer_with_stacks()
without_event_engine()

with kept():
    from penstock_shard.process import main

main()
