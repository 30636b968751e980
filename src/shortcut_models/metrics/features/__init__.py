"""From samples to the vectors that metrics compare."""
