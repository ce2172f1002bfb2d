"""The Triton kernels. Each module names the torch reference that says what it must compute."""
