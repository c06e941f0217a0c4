"""One ONNX file with all of a model in it: both eyes, what weighs them, and all that is done to a head's crop."""
