"""Settings that every test runs under."""

import jax

# The library must never rely on implicit broadcasting between ranks.
jax.config.update("jax_numpy_rank_promotion", "raise")
# Where JAX_COMPILATION_CACHE_DIR is set, keep the many small programs too: a second run is four times faster.
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
