"""A local server that speaks TF Serving's gRPC and REST; for development, tests and small deployments."""
