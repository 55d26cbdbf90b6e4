"""Runs as batch jobs: schedulers, sites, scripts, studies, and the environment on the nodes."""
