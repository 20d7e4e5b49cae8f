"""Numbers of a set of images, or of a group of them: each with its sample size, its extractor and an interval."""
