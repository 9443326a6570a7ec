"""The engine that trains everything: settings, optimizers, the loop over a task, process mesh, checkpoints, log."""
