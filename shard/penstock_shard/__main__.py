from penstock_proto.transport import without_event_engine

without_event_engine()

from penstock_shard.process import main  # noqa: E402

main()
