"""Every operation in plain torch: the CPU's path, and what the kernels are held against."""
