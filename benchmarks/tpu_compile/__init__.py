"""The dense half of DLRM's train step, compiled for TPUs without one: `dense_half` lowers it, `compiler` compiles it.

The two cannot share a process, nor an environment: TensorFlow and the libtpu that compiles for all chips do not fit.
"""
