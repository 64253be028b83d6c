"""How much a run can be trusted: kills at random moments, and thousands of damaged inputs."""
