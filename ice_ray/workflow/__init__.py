"""The jobs, put together: what to check, what to run in which order, what to write where."""
