"""A package by name: `docs` has a module of that name."""
