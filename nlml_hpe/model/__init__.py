"""One folder for all that inference needs: its format, its card, its ONNX file."""
