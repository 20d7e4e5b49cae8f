"""The gate itself. The room is called gating, since ``qualitygate.gate`` is the function that people call."""
