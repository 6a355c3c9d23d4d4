"""Whether a bundle is fit to be served, found out as TF Serving would: in the C++ runtime, without Python's TensorFlow."""
