"""From an image or a video to poses: estimator, engines, smoothing."""
