"""Cards by their compute capability."""

# Shared memory that one program may have: CUDA C++ programming guide, "Technical Specifications per
# Compute Capability".
SHARED_KIB = {75: 64, 80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}
