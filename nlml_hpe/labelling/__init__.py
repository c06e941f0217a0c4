"""Training data that nobody labelled: photographs and video frames to crops, labelled by a model."""
