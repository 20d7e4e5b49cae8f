"""The page a reviewer opens: one HTML file that needs nothing else, from a template, with figures by matplotlib."""
