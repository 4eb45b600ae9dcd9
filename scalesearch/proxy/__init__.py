"""Short trainings on the device: images, the training loop, checkpoints. Knows only modules, nothing of trials."""
