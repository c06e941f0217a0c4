"""From an image to landmarks: the search, the detectors, what their points mean."""
