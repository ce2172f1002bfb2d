"""Matrix products: `table` says which kernel computes one."""
