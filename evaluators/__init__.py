"""Ways to score an architecture, and the tasks to score it on."""
