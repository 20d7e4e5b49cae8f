"""The check of a new checkpoint: subjects, their samples, their numbers, and the verdict."""
