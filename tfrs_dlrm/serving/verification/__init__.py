"""Whether a bundle is fit to be served: in the C++ runtime, without TensorFlow's Python."""
