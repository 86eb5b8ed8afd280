"""Settings that Keras and JAX read when they are imported."""

import os

os.environ["KERAS_BACKEND"] = "jax"
os.environ["JAX_ENABLE_X64"] = "1"  # without it, float64 is silently float32
