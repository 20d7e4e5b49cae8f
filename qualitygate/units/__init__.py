"""Unit scores: which units of a layer draw what is wrong. All in one form, so that they can be ranked side by side."""
