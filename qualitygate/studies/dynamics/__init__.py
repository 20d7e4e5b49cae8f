"""How scores move from one snapshot of a training run to the next, on the same latents."""
