"""Training: options, losses, teachers, adversaries, checkpoints."""
