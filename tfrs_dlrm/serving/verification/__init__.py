"""Checks whether a bundle is fit to be served, without TensorFlow's Python."""
