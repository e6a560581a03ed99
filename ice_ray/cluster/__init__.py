"""The Ray session, and the workload that its processes are given."""
