"""A package by name: `benchmarks` has a module of that name."""
