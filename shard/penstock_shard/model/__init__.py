"""Models: blocks of layers, what each rank holds of them, and how they run."""
