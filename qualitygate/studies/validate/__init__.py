"""Whether a checkpoint's scores mean anything: samples, evidence, findings, and what follows from them."""
