"""Reports: pictures and pages made from records and exhibits, never from a generator."""
