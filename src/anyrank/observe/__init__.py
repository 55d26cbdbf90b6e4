"""What a run tells of itself. Called by the run, and calls nobody."""
