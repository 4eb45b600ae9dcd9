"""Training kernels that read and write maps as few times as they can; every one has a plain path in torch beside it."""
