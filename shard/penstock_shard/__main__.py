from penstock_shard.process import main

main()
