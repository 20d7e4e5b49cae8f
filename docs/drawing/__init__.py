"""How the pictures of the method pages are drawn, a file for each page; `docs/figures.py` makes them."""
