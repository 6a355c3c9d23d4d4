"""The configuration of each model, in a file of the model's name; `registry` lists them. None loads TensorFlow."""
