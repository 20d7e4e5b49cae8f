"""Feature extractors: named, injectable, and recorded with every number they have a part in."""
