"""The configuration of each model; `registry` lists them all. This package does not load TensorFlow."""
